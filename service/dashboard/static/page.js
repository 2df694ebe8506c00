// What every page does: appearance switch, times in the viewer's zone, copy buttons, dialogs, actions, shortcuts.

import { call } from "./api.js";
import { keys } from "./keys.js";

const NAMES = { auto: "automatic", light: "light", dark: "dark" };
const NEXT = { auto: "light", light: "dark", dark: "auto" };
const STEPS = [[60, "second"], [3600, "minute"], [86400, "hour"], [30 * 86400, "day"], [365 * 86400, "month"], [Infinity, "year"]];

function age(seconds) {
  const words = new Intl.RelativeTimeFormat(undefined, { numeric: "auto", style: "long" });
  let size = 1;
  for (const [limit, unit] of STEPS) {
    if (Math.abs(seconds) < limit) return words.format(-Math.round(seconds / size), unit);
    size = limit;
  }
  return "";
}

export function tellTimes(root = document) {
  for (const element of root.querySelectorAll("time[data-time]")) {
    const at = new Date(element.dateTime);
    const local = at.toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });
    element.title = `${local} here, ${at.toISOString().slice(0, 19).replace("T", " ")} UTC`;
    element.textContent =
      element.dataset.time === "age" ? age((Date.now() - at) / 1000)
      : element.dataset.time === "clock" ? at.toLocaleTimeString()
      : local;
  }
}

function themeSwitch() {
  const button = document.querySelector("[data-theme-switch]");
  const tell = () => {
    const choice = window.mutransferTheme.choice();
    button.dataset.choice = choice;
    button.setAttribute("aria-label", `Appearance: ${NAMES[choice]}. Switch to ${NAMES[NEXT[choice]]}`);
    button.title = `Appearance: ${NAMES[choice]}`;
  };
  button.addEventListener("click", () => {
    window.mutransferTheme.choose(NEXT[window.mutransferTheme.choice()]);
    tell();
  });
  tell();
}

async function copy(button) {
  const before = button.textContent;
  try {
    const text = button.dataset.copyFrom
      ? await (await fetch(button.dataset.copyFrom)).text()
      : document.getElementById(button.dataset.copy).textContent;
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch {
    button.textContent = "Select and copy by hand"; // the page is not served from a secure place
  }
  setTimeout(() => (button.textContent = before), 1600);
}

// A form that is an action of the API: its fields, where it has some, are the body.
async function act(form) {
  const output = form.querySelector("[role=alert]");
  const fields = Object.fromEntries([...new FormData(form)].filter(([, value]) => value !== ""));
  const body = form.dataset.action === "json" ? numbered(form, fields) : form.dataset.action === "patch" ? patch(form) : undefined;
  const answer = await call(form.dataset.method ?? "POST", form.getAttribute("action"), { body });
  if (answer.ok) location.reload();
  else output.textContent = answer.problem;
}

// The fields that were changed, as a merge patch: names are paths, lists are numbers between commas.
function patch(form) {
  const made = {};
  for (const field of form.querySelectorAll("input[data-kind]")) {
    if (field.value.trim() === field.defaultValue) continue;
    const numbers = field.value.replaceAll("−", "-").split(/[\s,;]+/).filter(Boolean).map(Number);
    const path = field.name.split(".");
    const last = path.pop();
    let at = made;
    for (const name of path) at = at[name] ??= {};
    at[last] = field.dataset.kind === "list" ? numbers : numbers[0];
  }
  return made;
}

function numbered(form, fields) {
  const number = (name) => form.elements[name]?.type === "number";
  return Object.fromEntries(Object.entries(fields).map(([name, value]) => [name, number(name) ? Number(value) : value]));
}

function wire() {
  document.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (button?.dataset.copy ?? button?.dataset.copyFrom) copy(button);
    if (button?.dataset.dialog) document.getElementById(button.dataset.dialog).showModal();
    if (button?.dataset.close !== undefined) button.closest("dialog").close();
  });
  document.addEventListener("submit", (event) => {
    if (event.target.matches("form[data-action]")) {
      event.preventDefault();
      act(event.target);
    }
  });
}

themeSwitch();
wire();
keys();
tellTimes();
setInterval(tellTimes, 30_000);
