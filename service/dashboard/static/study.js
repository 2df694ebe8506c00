// The page of one study: charts, the choice of training curves, the recipe form, live updates.

import { Charts } from "./charts.js";
import { Live, refresh } from "./live.js";

const body = document.body.dataset;

function plotly() {
  return new Promise((resolve, reject) => {
    const script = Object.assign(document.createElement("script"), { src: body.plotly, async: true });
    script.addEventListener("load", () => resolve());
    script.addEventListener("error", () => reject(new Error("Plotly did not load")));
    document.head.append(script);
  });
}

async function figures(theme) {
  const query = new URLSearchParams(location.search);
  query.set("theme", theme);
  const answer = await fetch(`${body.figures}?${query}`);
  return (await answer.json()).charts;
}

const charts = new Charts({ figures, plotly });
charts.draw().catch(() => charts.fail());

// Forms that choose what the page shows: their fields are the page's address, so that it can be shared.
for (const form of document.querySelectorAll("form[data-choose]")) {
  const apply = async () => {
    const query = new URLSearchParams(location.search);
    for (const [name, value] of new FormData(form)) {
      if (value) query.set(name, value);
      else query.delete(name);
    }
    history.replaceState(null, "", `?${query}${form.getAttribute("data-choose")}`);
    await refresh();
    if (form.dataset.redraws) await charts.draw({ fresh: true, only: form.dataset.redraws });
  };
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    apply();
  });
  form.addEventListener("change", (event) => {
    if (event.target.matches("select")) apply();
  });
}

if (body.final === undefined) {
  new Live({ events: body.events, onChange: () => charts.draw({ fresh: true }) }).start();
}
