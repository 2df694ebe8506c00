// The submit page: the form writes the text, the API checks the text, the plan says what it costs.

import { call } from "./api.js";
import { count, duration } from "./words.js";

const SETTLED = 350; // ms without a key before the text is checked
const page = document.querySelector("[data-submit]");
const find = (name) => page.querySelector(`[data-${name}]`);
const [form, fields, editor, send] = [find("form"), find("fields"), find("editor"), find("send")];
const note = find("form-note");
const firstNote = note.textContent;

let checking = 0; // the newest check: answers of older ones are dropped
let waiting;
let key = freshKey();

// One key for one text: a submission that was sent twice makes one study. Works where crypto.randomUUID is barred.
function freshKey() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

// --- the form writes YAML ---------------------------------------------------------------------------------------------

// Quotes what YAML would read as something else than this text.
function quoted(text) {
  const bare = /^[A-Za-z/][\w./-]*(:[/\w.-]+(#[\w.-]+)?)?$/.test(text) && !/^(true|false|yes|no|on|off|null|y|n)$/i.test(text);
  return bare ? text : JSON.stringify(text);
}

const value = (name) => form.elements[name].value.trim();
const number = (name) => (value(name) === "" ? "null" : String(Number(value(name))));
const list = (name) => `[${value(name).split(/[\s,]+/).filter(Boolean).map((part) => (/^\d+$/.test(part) ? Number(part) : JSON.stringify(part))).join(", ")}]`;

function written() {
  const arms = [...form.querySelectorAll("[name=arm]:checked")].map((box) => box.value.split(":"));
  return [
    "version: 1",
    `name: ${quoted(value("name"))}`,
    `project: ${quoted(value("project"))}`,
    `model: {family: ${quoted(value("family"))}, depth: ${number("depth")}, head_dim: ${number("head_dim")}, context: ${number("context")}}`,
    `data: {source: ${quoted(value("source"))}, tokenizer: ${quoted(value("tokenizer"))}}`,
    `train: {batch: ${number("batch")}, steps: ${number("steps")}}`,
    `widths: {base: ${number("base")}, proxy: ${list("proxy")}, targets: ${list("targets")}}`,
    arms.length ? "arms:" : "arms: []",
    ...arms.map(([optimizer, scheme]) => `- {optimizer: ${optimizer}, parametrization: ${scheme}}`),
    "search:",
    `  lr_octaves: {low: ${number("low")}, high: ${number("high")}}`,
    `  seeds: {min: ${number("seeds_min")}, max: ${number("seeds_max")}}`,
    "",
  ].join("\n");
}

function formLeads(leads) {
  fields.disabled = !leads;
  find("start-over").hidden = leads;
  note.textContent = leads ? firstNote : "The text was changed by hand and leads now.";
}

// --- the API checks it ------------------------------------------------------------------------------------------------

function soon() {
  send.disabled = true;
  key = freshKey();
  clearTimeout(waiting);
  waiting = setTimeout(check, SETTLED);
}

async function check() {
  const mine = ++checking;
  find("refused").textContent = "";
  const asked = find("fresh").checked ? "/api/v1/plan?fresh=true" : "/api/v1/plan";
  const answer = await call("POST", asked, { body: editor.value, type: "application/yaml" });
  if (mine !== checking) return;
  const problems = answer.ok ? [] : (answer.body?.errors?.length ? answer.body.errors : [{ field: "", message: answer.problem }]);
  tellProblems(problems);
  if (answer.ok) tellPlan(answer.body);
  find("plan").hidden = !answer.ok;
  send.disabled = !answer.ok;
  const faults = problems.length === 1 ? "One thing is" : `${problems.length} things are`;
  find("plan-state").textContent = answer.ok ? "Valid. Estimated for this machine's cores." : `${faults} wrong:`;
}

function tellProblems(problems) {
  const items = problems.map(({ field, message }) => {
    const item = document.createElement("li");
    if (field) item.append(Object.assign(document.createElement("code"), { textContent: field }), " ");
    item.append(message);
    return item;
  });
  find("problems").replaceChildren(...items);
  editor.setAttribute("aria-invalid", String(problems.length > 0));
  for (const control of form.querySelectorAll("[data-field]")) {
    const mine = problems.filter(({ field }) => field === control.dataset.field || field.startsWith(`${control.dataset.field}.`));
    if (mine.length) control.setAttribute("aria-invalid", "true");
    else control.removeAttribute("aria-invalid");
    document.getElementById(`${control.id}-wrong`).textContent = fields.disabled ? "" : mine.map((one) => one.message).join("; ");
  }
  const arms = problems.filter(({ field }) => field === "arms" || field.startsWith("arms."));
  document.getElementById("arms-wrong").textContent = fields.disabled ? "" : arms.map((one) => one.message).join("; ");
}

function tellPlan(plan) {
  find("plan-time").textContent = duration(plan.device_seconds_expected);
  find("plan-trials").textContent = `about ${count(plan.trials_expected)}`;
  find("plan-audit").textContent = plan.audit_seconds ? `${duration(plan.audit_seconds)}, before them` : "none";
  find("plan-tokens").textContent = count(plan.tokens_expected);
  find("plan-most").textContent = `${count(plan.trials_max)} trials, ${duration(plan.device_seconds_max)}`;
  const { trials_known: known, trials_total: total, device_seconds_saved: saved, note } = plan.reuse;
  find("plan-known").textContent = known ? `${count(known)} of ${count(total)}, saving ${duration(saved)}` : "none";
  find("plan-note").textContent = note;
  const rows = plan.curves.map((curve) => {
    const row = document.createElement("tr");
    const cells = [curve.phase, curve.axis_value, `${curve.trials_expected} – ${curve.trials_max}`, duration(curve.seconds_per_trial)];
    row.append(...cells.map((text, place) => Object.assign(document.createElement("td"), { textContent: text, className: place ? "num" : "" })));
    return row;
  });
  find("plan-rows").replaceChildren(...rows);
}

// --- and takes it -----------------------------------------------------------------------------------------------------

async function submit() {
  send.disabled = true;
  const query = new URLSearchParams(find("fresh").checked ? { fresh: "true" } : {});
  if (find("priority").value) query.set("priority", find("priority").value);
  const path = `/api/v1/studies?${query}`;
  const extra = { "Idempotency-Key": key };
  const answer = await call("POST", path, { body: editor.value, type: "application/yaml", extra });
  if (answer.ok) location.assign(answer.body.links.page);
  else find("refused").textContent = answer.problem;
  send.disabled = answer.ok;
}

function save() {
  const name = editor.value.match(/^name:\s*["']?([\w.-]+)/m)?.[1] ?? "study";
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([editor.value], { type: "application/yaml" }));
  link.download = `${name}.yaml`;
  link.click();
  URL.revokeObjectURL(link.href);
}

form.addEventListener("input", () => {
  editor.value = written();
  soon();
});
form.addEventListener("submit", (event) => event.preventDefault());
editor.addEventListener("input", () => {
  formLeads(false);
  soon();
});
find("start-over").addEventListener("click", () => {
  formLeads(true);
  editor.value = written();
  soon();
});
find("open").addEventListener("change", async (event) => {
  const [file] = event.target.files;
  if (!file) return;
  editor.value = await file.text();
  event.target.value = "";
  formLeads(false);
  soon();
});
find("save").addEventListener("click", save);
for (const name of ["fresh", "priority"]) find(name).addEventListener("change", soon);
send.addEventListener("click", submit);
check();
