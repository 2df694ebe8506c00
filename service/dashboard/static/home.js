// The list of studies: searches while one types, keeps itself fresh while something runs.

import { Live } from "./live.js";

const search = document.querySelector("input[data-search]");
let waiting;
search.addEventListener("input", () => {
  clearTimeout(waiting);
  waiting = setTimeout(() => search.form.requestSubmit(), 400);
});
search.form.addEventListener("change", (event) => {
  if (event.target.matches("[data-act]")) search.form.requestSubmit();
});
// An address names what is asked for, and nothing else.
search.form.addEventListener("formdata", ({ formData }) => {
  for (const [name, value] of [...formData]) if (!value) formData.delete(name);
});
if (search.value) {
  search.focus();
  search.setSelectionRange(search.value.length, search.value.length);
}

if (document.body.dataset.active !== undefined) new Live({}).start();
