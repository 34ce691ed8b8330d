// Two models go on from the same place, side by side.

import { clean } from "./text.js";
import { completion } from "./server.js";
import { button } from "./texts.js";

export class Compare {
  constructor(editor, sync, settings) {
    Object.assign(this, { editor, sync, settings });
    this.box = document.getElementById("comparison");
    this.line = document.getElementById("compare-say");
    this.button = document.getElementById("compare");
    this.button.addEventListener("click", () => (this.running ? this.stop() : this.show()));
    editor.addEventListener("open", () => {
      this.stop();
      this.box.replaceChildren();
    });
  }

  stop() {
    this.running?.abort();
  }

  async show() {
    const running = (this.running = new AbortController());
    const models = ["left", "right"].map((id) => document.getElementById(id).value);
    const at = this.editor.selection.to;
    const seed = Number(this.settings.values.seed) || Math.floor(Math.random() * 1e9);
    const versions = models.map((model) => this.#version(model));
    this.box.replaceChildren(...versions.map(({ element }) => element));
    this.button.textContent = "Stop";
    this.line.textContent = "Both are writing…";
    try {
      await this.sync.with(at, (context) => Promise.all(models.map((model, n) =>
        this.#write({ ...this.settings.request(), ...context, model, seed }, versions[n].text, running.signal))), running.signal);
      this.line.textContent = "Both have written.";
    } catch (error) {
      this.line.textContent = running.signal.aborted ? "Stopped." : error.message;
    } finally {
      this.running = null;
      this.button.textContent = "Write with both";
    }
  }

  async #write(body, place, signal) {
    place.textContent = "";
    for await (const { text } of completion(body, signal)) place.textContent += clean(text);
  }

  #version(model) {
    const element = document.createElement("div");
    const name = document.createElement("h4");
    const text = document.createElement("p");
    element.className = "version";
    name.textContent = model;
    text.tabIndex = 0; // it scrolls
    text.setAttribute("role", "group");
    text.setAttribute("aria-label", `What ${model} wrote`);
    const take = () => {
      const at = this.editor.selection.to;
      this.stop();
      this.editor.edit(at, at, text.textContent);
      this.editor.reveal(this.editor.selection.to);
    };
    element.append(name, text, button("Take this", take, { "aria-label": `Take this, which ${model} wrote` }));
    return { element, text };
  }
}
