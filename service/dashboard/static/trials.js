// The pages of trials: filters act at once, one trial's chart is drawn.

import { drawCharts } from "./drawing.js";

if (document.body.dataset.figures) drawCharts();
for (const form of document.querySelectorAll("form[data-submits]")) {
  form.addEventListener("change", () => form.requestSubmit());
}
