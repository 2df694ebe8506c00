// Keyboard shortcuts. They can be switched off, since single keys get in the way of speech input.

const OFF = "mutransfer-shortcuts-off";
const SOON = 1200; // ms for the key after `g`

let after = 0; // until when `g` waits for its second key

function on() {
  try {
    return localStorage.getItem(OFF) === null;
  } catch {
    return true; // storage is barred: they are as at first
  }
}

function typing(target) {
  return target.closest("input, select, textarea, [contenteditable], dialog") !== null;
}

// The next or previous thing a page is made of: studies in a list, else its sections.
function step(by) {
  const links = [...document.querySelectorAll("[data-step]")];
  const all = links.length ? links : [...document.querySelectorAll("main section[id]")];
  if (!all.length) return;
  const here = all.indexOf(document.activeElement);
  const top = all.findIndex((one) => one.getBoundingClientRect().top > 80);
  const start = here >= 0 ? here + by : links.length ? 0 : (top < 0 ? all.length : top) + (by > 0 ? 0 : -2);
  const next = all[Math.min(Math.max(start, 0), all.length - 1)];
  if (!links.length) next.tabIndex = -1;
  next.focus({ preventScroll: true });
  next.scrollIntoView({ block: links.length ? "nearest" : "start" });
}

function search() {
  const field = document.querySelector("[data-search]");
  if (field) field.select();
  else location.assign("/#search");
  field?.focus();
}

function press(event) {
  if (!on() || event.ctrlKey || event.metaKey || event.altKey || typing(event.target)) return;
  const soon = Date.now() < after;
  after = 0;
  if (soon) {
    document.querySelector(`[data-shortcut="${CSS.escape(event.key)}"]`)?.click();
    return;
  }
  const acts = {
    g: () => (after = Date.now() + SOON),
    "/": search,
    "?": () => document.getElementById("help").showModal(),
    t: () => document.querySelector("[data-theme-switch]").click(),
    j: () => step(1),
    k: () => step(-1),
  };
  if (!Object.hasOwn(acts, event.key)) return;
  event.preventDefault();
  acts[event.key]();
}

export function keys() {
  document.addEventListener("keydown", press);
  const box = document.querySelector("[data-shortcuts]");
  box.checked = on();
  box.addEventListener("change", () => {
    try {
      if (box.checked) localStorage.removeItem(OFF);
      else localStorage.setItem(OFF, "1");
    } catch {
      // as above
    }
  });
  if (location.hash === "#search") document.querySelector("[data-search]")?.focus();
}
