// Keeps a page as fresh as the server's: the same address is read again and the regions marked data-live are replaced
// where they differ. The server says when (events); where it cannot, the clock does.

import { tellTimes } from "./page.js";

const QUIET = 1500; // ms between two refreshes at least
const POLL = 5000;

export async function refresh() {
  const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
  if (!answer.ok) throw new Error(`status ${answer.status}`);
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
  for (const region of document.querySelectorAll("[data-live]")) {
    if (region.querySelector("dialog[open]")) continue; // somebody is at it: next time
    const other = fresh.getElementById(region.id);
    if (other && other.innerHTML !== region.dataset.seen) {
      region.dataset.seen = other.innerHTML;
      region.replaceChildren(...[...other.childNodes].map((node) => document.importNode(node, true)));
      tellTimes(region);
    }
  }
  document.title = fresh.title;
  return fresh.body.dataset;
}

export class Live {
  constructor({ events, onChange, onBeat }) {
    this.events = events;
    this.onChange = onChange;
    this.onBeat = onBeat;
    this.dot = document.querySelector("[data-live-dot]");
    this.version = document.body.dataset.version;
    this.beat = document.body.dataset.beat;
  }

  start() {
    document.addEventListener("close", () => this.soon(), true); // what an open dialog held back
    if (this.events) this.listen();
    else this.poll();
  }

  tell(state, words) {
    this.dot.dataset.state = state;
    this.dot.querySelector("span").textContent = words;
  }

  listen() {
    this.source = new EventSource(this.events);
    this.source.onopen = () => {
      clearInterval(this.timer);
      this.timer = null;
      this.tell("live", "live");
      this.soon();
    };
    this.source.onmessage = () => this.soon();
    for (const kind of document.body.dataset.kinds.split(" ")) this.source.addEventListener(kind, () => this.soon());
    this.source.onerror = () => this.poll();
  }

  poll() {
    if (this.timer) return;
    this.tell("polling", "checking every 5 s");
    this.timer = setInterval(() => this.soon(), POLL);
  }

  soon() {
    this.again = Boolean(this.updating); // said while the page is being read: read it once more
    if (this.waiting) return;
    const wait = Math.max(0, (this.last ?? 0) + QUIET - Date.now());
    this.waiting = setTimeout(() => this.update(), wait);
  }

  async update() {
    this.updating = true;
    try {
      const state = await refresh();
      if (state.version !== this.version) {
        this.version = state.version;
        await this.onChange?.();
      } else if (state.beat !== this.beat) {
        await this.onBeat?.();
      }
      this.beat = state.beat;
      if (state.final !== undefined) this.stop();
    } catch {
      this.tell("offline", "no answer, trying again");
    }
    this.last = Date.now();
    this.waiting = null;
    this.updating = false;
    if (this.again) this.soon();
  }

  stop() {
    this.source?.close();
    clearInterval(this.timer);
    this.tell("off", "");
  }
}
