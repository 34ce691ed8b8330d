// The models there are: which one writes, its report, the curve of one that is still learning.

import { ask, hasToken, json } from "./server.js";
import { curve } from "./curve.js";
import { button, download } from "./texts.js";

const MANY = 1000; // rows: there may be more to fetch at once
const EVERY = 2500; // milliseconds between two looks at a run in training

function age(seconds) {
  if (seconds == null) return "";
  const units = [[86400, "day"], [3600, "hour"], [60, "minute"]];
  const [size, name] = units.find(([one]) => seconds >= one) ?? [1, "second"];
  const count = Math.floor(seconds / size);
  return `${count} ${name}${count === 1 ? "" : "s"} ago`;
}

export function describe(run) {
  const parts = [];
  const read = run.text || (run.name === "starter" ? "English novels" : "");
  if (read) parts.push(`has read ${read}`);
  if (run.steps) parts.push(`${run.steps.toLocaleString()} steps of training`);
  if (run.bits_per_byte) parts.push(`${run.bits_per_byte.toFixed(2)} bits per byte`);
  if (run.training) parts.push("still learning");
  else if (run.age_seconds != null) parts.push(`made ${age(run.age_seconds)}`);
  return parts.join("; ");
}

export class Runs extends EventTarget {
  constructor(settings, say) {
    super();
    Object.assign(this, { settings, say });
    this.list = document.getElementById("run-list");
    this.box = document.getElementById("curve");
    this.runs = [];
    this.watched = null;
    settings.addEventListener("change", () => this.#show());
  }

  async load() {
    const { runs, first } = await json("api/runs");
    this.runs = runs;
    this.settings.offerModels(runs, first);
    for (const id of ["left", "right"]) {
      const field = document.getElementById(id);
      const chosen = field.value;
      field.replaceChildren(...runs.map((run) => new Option(run.name, run.name)));
      field.value = runs.some((run) => run.name === chosen) ? chosen : (runs[id === "left" ? 0 : runs.length - 1]?.name ?? "");
    }
    document.getElementById("comparing").hidden = runs.length < 2;
    document.getElementById("one-alone").hidden = runs.length !== 1;
    this.#show();
  }

  #show() {
    const chosen = this.settings.values.model;
    const focused = document.activeElement?.dataset?.key;
    document.getElementById("model-say").textContent = describe(this.runs.find((run) => run.name === chosen) ?? {});
    this.list.replaceChildren(...this.runs.map((run) => this.#item(run, run.name === chosen)));
    if (focused) [...this.list.querySelectorAll("button")].find((one) => one.dataset.key === focused)?.focus();
  }

  #item(run, chosen) {
    const item = document.createElement("li");
    const name = document.createElement("b");
    const note = document.createElement("span");
    const row = document.createElement("p");
    name.textContent = run.name;
    note.className = "note";
    note.textContent = describe(run);
    row.className = "row";
    const take = button(chosen ? "Writes now" : "Write with it", () => this.settings.set({ model: run.name }), { "aria-pressed": chosen });
    const see = button("Training curve", () => this.watch(run), { "aria-label": `Training curve of ${run.name}` });
    const report = button("Report", () => this.#report(run.name), { "aria-label": `Report of ${run.name}` });
    row.append(take, ...(run.steps ? [see, report] : [])); // one that came without its log has neither
    for (const [n, one] of [...row.children].entries()) one.dataset.key = `${run.name} ${n}`; // keeps the focus when drawn anew
    item.append(name, note, row);
    return item;
  }

  async #report(name) {
    const path = `api/runs/${encodeURIComponent(name)}/report`;
    if (!hasToken()) return void open(path, "_blank", "noopener");
    try {
      download(await (await ask(path)).blob(), `${name}.html`); // a link cannot carry the token
    } catch (error) {
      this.say(error.message, true);
    }
  }

  /** Draw a run's curve, and go on while it learns and the panel is open. */
  async watch(run) {
    this.stopWatching();
    const watched = (this.watched = { name: run.name, rows: [] });
    try {
      while (this.watched === watched) {
        const since = watched.rows.at(-1)?.step ?? -1;
        const answer = await json(`api/runs/${encodeURIComponent(run.name)}/metrics?since=${since}`);
        if (this.watched !== watched) return;
        const fresh = answer.rows.filter((row) => row.step > since || since < 0);
        watched.rows.push(...fresh);
        if (fresh.length || !this.box.firstChild) {
          this.box.replaceChildren(curve(run.name, watched.rows));
          this.box.hidden = false;
        }
        if (fresh.length >= MANY) continue;
        if (!this.runs.find(({ name }) => name === run.name)?.training) return;
        await new Promise((done) => setTimeout(done, EVERY));
        if (document.hidden) continue;
        if (!fresh.length) await this.load();
      }
    } catch (error) {
      this.say(error.message, true);
    }
  }

  stopWatching() {
    this.watched = null;
    this.box.replaceChildren();
    this.box.hidden = true;
  }
}
