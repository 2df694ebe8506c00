// The list of studies: searches while one types, keeps itself fresh while something runs.

import { Live } from "./live.js";

const search = document.querySelector("input[data-search]");
let waiting;
search.addEventListener("input", () => {
  clearTimeout(waiting);
  waiting = setTimeout(() => search.form.requestSubmit(), 400);
});
if (search.value) {
  search.focus();
  search.setSelectionRange(search.value.length, search.value.length);
}

if (document.body.dataset.active !== undefined) new Live({}).start();
