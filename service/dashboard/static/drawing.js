// Draws the charts of a page whose body names where its figures and Plotly are.

import { Charts } from "./charts.js";

export function plotly() {
  return new Promise((resolve, reject) => {
    const script = Object.assign(document.createElement("script"), { src: document.body.dataset.plotly, async: true });
    script.addEventListener("load", () => resolve());
    script.addEventListener("error", () => reject(new Error("Plotly did not load")));
    document.head.append(script);
  });
}

async function figures(theme) {
  const query = new URLSearchParams(location.search);
  query.set("theme", theme);
  const answer = await fetch(`${document.body.dataset.figures}?${query}`);
  if (!answer.ok) throw new Error(`status ${answer.status}`);
  return (await answer.json()).charts;
}

export function drawCharts() {
  const charts = new Charts({ figures, plotly });
  charts.draw().catch(() => charts.fail());
  return charts;
}
