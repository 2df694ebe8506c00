// One schedule: its trends, and what is done to it.

import { call } from "./api.js";
import { drawCharts } from "./drawing.js";
import { Live } from "./live.js";

const charts = drawCharts();

for (const button of document.querySelectorAll("[data-call]")) {
  button.addEventListener("click", async () => {
    const body = button.dataset.pins === undefined ? undefined : { study: document.querySelector("[data-pin]").value };
    const answer = await call(button.dataset.call, button.dataset.path, { body });
    const place = button.closest("dialog, section").querySelector("[data-refused]");
    if (!answer.ok) place.textContent = answer.problem;
    else if (button.dataset.then) location.assign(button.dataset.then);
    else location.reload();
  });
}

new Live({ onChange: () => charts.draw({ fresh: true }) }).start();
