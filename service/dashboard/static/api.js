// Calls the API, and turns problem documents into words. The browser says from which origin, which the service checks.

const SILENT = "The service does not answer. Nothing was changed.";

// Resolves to { ok, status, body, problem }: `problem` says what went wrong, field by field where the API does.
export async function call(method, path, { body, type = "application/json", extra = {} } = {}) {
  const own = body === undefined ? {} : { "Content-Type": type };
  const text = body === undefined || typeof body === "string" ? body : JSON.stringify(body);
  const answer = await fetch(path, { method, headers: { ...extra, ...own }, body: text }).catch(() => null);
  if (!answer) return { ok: false, status: 0, body: null, problem: SILENT };
  const found = await answer.json().catch(() => null);
  return { ok: answer.ok, status: answer.status, body: found, problem: answer.ok ? "" : words(found, answer.status) };
}

function words(problem, status) {
  const said = (problem?.errors ?? []).map(({ field, message }) => (field ? `${field}: ${message}` : message));
  return said.length ? said.join("; ") : (problem?.detail || problem?.title || `The service answered ${status}.`);
}

let silence;

// A line at the foot of the page, read out by screen readers, gone after a while.
export function say(text) {
  const place = document.querySelector("[data-said]");
  place.textContent = text;
  clearTimeout(silence);
  silence = setTimeout(() => (place.textContent = ""), 4000);
}
