// The compare page: its charts, and the choice of a width.

import { drawCharts } from "./drawing.js";

drawCharts();
for (const form of document.querySelectorAll("form[data-submits]")) {
  form.addEventListener("change", () => form.requestSubmit());
}
