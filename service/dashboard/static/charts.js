// Draws the charts of a page: `figures(theme)` resolves to the documents, `plotly()` to the library. Used by the
// dashboard and by the offline report alike, so it imports nothing.

const NARROW = 640;
const LEAST = 200; // px: narrower than any screen; a window on its way to another size is not worth drawing for
const CONFIG = { displayModeBar: false, responsive: false, doubleClick: "reset", showTips: false };

const clone = (value) => structuredClone(value);
const theme = () => window.mutransferTheme.current();

function wrapped(text, most) {
  const lines = [""];
  for (const word of text.split(" ")) {
    const last = lines[lines.length - 1];
    if (last && last.length + word.length + 1 > most) lines.push(word);
    else lines[lines.length - 1] = last ? `${last} ${word}` : word;
  }
  return lines;
}

class Chart {
  constructor(section, library) {
    this.section = section;
    this.key = section.dataset.chart;
    this.plot = section.querySelector(".plot");
    this.library = library;
    this.view = 0;
    this.width = 0;
    section.querySelectorAll("[data-download]").forEach((button) => {
      button.addEventListener("click", () => this.download(button.dataset.download));
    });
    section.querySelectorAll("[data-view]").forEach((button) => {
      button.addEventListener("click", () => this.show(Number(button.dataset.view)));
    });
  }

  get narrow() {
    return this.width < NARROW;
  }

  layout(width) {
    const layout = clone(width < NARROW ? this.document.narrow : this.document.layout);
    return { ...layout, width, autosize: false, uirevision: this.key, dragmode: width < NARROW ? false : "zoom" };
  }

  async draw(document_) {
    this.document = document_;
    this.section.classList.remove("has-failed");
    this.section.classList.toggle("is-empty", Boolean(document_.empty));
    if (document_.empty) {
      this.plot.querySelector(".empty").textContent = document_.empty;
      return;
    }
    await this.library();
    this.width = Math.max(LEAST, Math.floor(this.plot.clientWidth));
    await this.react(this.width);
    this.section.classList.add("is-drawn");
    this.watch();
  }

  fail() {
    this.section.classList.add("is-empty", "has-failed");
    this.plot.querySelector(".empty").textContent =
      "The chart could not be loaded. Reload the page, or read the same numbers in the table below.";
  }

  // Traces of trials that run bring one point each time: the page keeps those it has seen and joins them.
  data() {
    const data = clone(this.document.data);
    for (const trace of data) {
      const key = trace.meta?.live;
      if (key === undefined) continue;
      const seen = (this.seen ??= new Map()).get(key) ?? new Map();
      this.seen.set(key, seen.set(trace.x[0], trace.y[0]));
      [trace.x, trace.y] = [[...seen.keys()], [...seen.values()]];
      trace.marker = { ...trace.marker, opacity: trace.x.map((_, i) => (i === trace.x.length - 1 ? 1 : 0)) };
    }
    return data;
  }

  // A page that lists trials (data-trials) is led to by a click on a point.
  lead(target) {
    const list = document.body.dataset.trials;
    if (!list) return;
    target.on("plotly_click", ({ points }) => {
      const query = points.find((point) => typeof point.customdata === "string")?.customdata;
      if (query) location.assign(`${list}?${query}`);
    });
  }

  async react(width) {
    const target = this.target();
    const first = target.data === undefined;
    await window.Plotly.react(target, this.data(), this.layout(width), CONFIG);
    if (first) this.lead(target);
    if (this.view) await window.Plotly.relayout(target, clone(this.document.views[this.view].relayout));
  }

  target() {
    this.canvas ??= this.plot.appendChild(Object.assign(document.createElement("div"), { className: "canvas" }));
    return this.canvas;
  }

  watch() {
    this.observer ??= new ResizeObserver(() => {
      clearTimeout(this.settling);
      this.settling = setTimeout(() => this.resize(), 120);
    });
    this.observer.observe(this.plot);
  }

  async resize() {
    const width = Math.floor(this.plot.clientWidth);
    if (width < LEAST || Math.abs(width - this.width) <= 1) return;
    this.width = width;
    window.Plotly.purge(this.canvas); // its legend keeps places of the old size when it is only updated
    await this.react(width);
  }

  async show(view) {
    this.view = view;
    this.section.querySelectorAll("[data-view]").forEach((button) => {
      button.setAttribute("aria-pressed", String(Number(button.dataset.view) === view));
    });
    if (this.canvas) await window.Plotly.relayout(this.canvas, clone(this.document.views[view].relayout));
  }

  async image(format) {
    const width = 1200;
    const layout = { ...clone(this.document.layout), width, autosize: false };
    const title = wrapped(this.document.title, 110);
    const extra = 28 * title.length + 12;
    layout.title = { text: title.join("<br>"), x: 0.02, xanchor: "left", y: 1, yanchor: "top", pad: { t: 16 }, font: { size: 18 } };
    layout.margin = { ...layout.margin, t: layout.margin.t + extra };
    layout.height += extra;
    const figure = { data: clone(this.document.data), layout };
    for (const [path, value] of Object.entries(this.view ? this.document.views[this.view].relayout : {})) {
      const [axis, field] = path.split(".");
      layout[axis][field] = value;
    }
    return window.Plotly.toImage(figure, { format, width, height: layout.height, scale: format === "png" ? 2 : 1 });
  }

  async download(format) {
    await this.library();
    const link = document.createElement("a");
    link.href = await this.image(format);
    link.download = `${this.section.dataset.name ?? "mutransfer"}-${this.key}.${format}`;
    link.click();
  }
}

export class Charts {
  constructor({ figures, plotly }) {
    this.figures = figures;
    let loading;
    const library = () => (loading ??= plotly());
    this.charts = [...document.querySelectorAll("[data-chart]")].map((section) => new Chart(section, library));
    this.known = new Map();
    document.addEventListener("themechange", () => this.draw());
    addEventListener("beforeprint", () => this.print());
    addEventListener("afterprint", () => this.draw());
  }

  async load(name, fresh) {
    if (fresh) this.known.clear();
    if (!this.known.has(name)) this.known.set(name, await this.figures(name));
    return this.known.get(name);
  }

  async draw({ fresh = false, only = null } = {}) {
    const name = theme();
    const documents = await this.load(name, fresh);
    for (const chart of this.charts) {
      const found = documents.find((one) => one.key === chart.key);
      if (found && (!only || only.split(" ").includes(chart.key))) await chart.draw(found);
    }
    document.documentElement.dataset.charts = name;
    if (name === "dark") this.load("light", false); // at hand when the page is printed
  }

  get theme() {
    return theme();
  }

  // Draws some charts anew, from documents of the current appearance.
  async show(documents) {
    for (const found of documents) await this.charts.find((one) => one.key === found.key)?.draw(found);
  }

  fail() {
    for (const chart of this.charts) if (!chart.canvas) chart.fail();
  }

  print() {
    for (const found of this.known.get("light") ?? []) {
      const chart = this.charts.find((one) => one.key === found.key);
      if (chart?.canvas && !found.empty) {
        chart.document = found;
        chart.react(680);
      }
    }
  }
}
