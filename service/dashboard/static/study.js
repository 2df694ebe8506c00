// The page of one study: charts, the choice of training curves, the recipe form, live updates.

import { Charts } from "./charts.js";
import { plotly } from "./drawing.js";
import { Live, refresh } from "./live.js";

const body = document.body.dataset;

async function figures(theme, only) {
  const query = new URLSearchParams(location.search);
  query.set("theme", theme);
  if (only) query.set("only", only);
  const answer = await fetch(`${body.figures}?${query}`);
  if (!answer.ok) throw new Error(`status ${answer.status}`);
  return (await answer.json()).charts;
}

const charts = new Charts({ figures, plotly });
charts.draw().catch(() => charts.fail());

// Forms that choose what the page shows: their fields are the page's address, so that it can be shared.
for (const form of document.querySelectorAll("form[data-choose]")) {
  const apply = async (submitter = null) => {
    const query = new URLSearchParams(location.search);
    for (const [name, value] of new FormData(form, submitter)) {
      if (value) query.set(name, value);
      else query.delete(name);
    }
    if (submitter?.name) form.querySelector(`input[name="${submitter.name}"]`).value = submitter.value;
    history.replaceState(null, "", `?${query}${form.getAttribute("data-choose")}`);
    await refresh();
    if (form.dataset.redraws) await charts.draw({ fresh: true, only: form.dataset.redraws });
  };
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    apply(event.submitter);
  });
  form.addEventListener("change", (event) => {
    if (event.target.matches("select")) apply();
  });
}

if (body.final === undefined) {
  const training = async () => charts.show(await figures(charts.theme, "training"));
  new Live({ events: body.events, onChange: () => charts.draw({ fresh: true }), onBeat: training }).start();
}
