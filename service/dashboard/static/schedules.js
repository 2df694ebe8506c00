// All schedules, and the form for a new one.

import { call } from "./api.js";
import { Live } from "./live.js";

const form = document.querySelector("[data-new]");
const zone = form.querySelector("[data-zone]");
zone.value = Intl.DateTimeFormat().resolvedOptions().timeZone || "UTC";

// The study stays the text that was written: JSON is YAML too, so the other fields stand around it quoted.
function written() {
  const value = (name) => JSON.stringify(form.elements[name].value.trim());
  const study = form.elements.study.value.split("\n").map((line) => `  ${line}`).join("\n");
  const plain = ["name", "cron", "time_zone", "concurrency"].map((name) => `${name}: ${value(name)}`);
  return [...plain, `baseline: {policy: ${value("baseline")}}`, "study:", study, ""].join("\n");
}

function tell(problems) {
  const items = problems.map(({ field, message }) => {
    const item = document.createElement("li");
    if (field) item.append(Object.assign(document.createElement("code"), { textContent: field }), " ");
    item.append(message);
    return item;
  });
  form.querySelector("[data-problems]").replaceChildren(...items);
  for (const control of form.elements) {
    if (!control.name) continue;
    const wrong = problems.some(({ field }) => field === control.name || field.startsWith(`${control.name}.`));
    if (wrong) control.setAttribute("aria-invalid", "true");
    else control.removeAttribute("aria-invalid");
  }
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const answer = await call("POST", "/api/v1/schedules", { body: written(), type: "application/yaml" });
  if (answer.ok) location.assign(answer.body.links.page);
  else tell(answer.body?.errors?.length ? answer.body.errors : [{ field: "", message: answer.problem }]);
});

new Live({}).start();
