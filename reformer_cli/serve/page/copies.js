// Words that stand so in the texts the model learned from: underlined, with the place they come from.

import { json } from "./server.js";
import { NO_MARKS, mark, passage, sentence, toggle } from "./look.js";
import { button } from "./texts.js";
import { unitsIn } from "./text.js";

const MOST = 20000; // characters

export class Copies {
  constructor(editor, settings, writer) {
    Object.assign(this, { editor, settings });
    this.button = document.getElementById("copies");
    this.line = document.getElementById("copies-say");
    this.list = document.getElementById("copies-list");
    this.found = [];
    toggle(this.button, () => this.show(passage(editor, MOST)), () => this.clear());
    editor.addEventListener("open", () => this.clear());
    editor.addEventListener("change", ({ detail }) => this.#shift(detail));
    writer.addEventListener("end", ({ detail: { from, to } }) => {
      if (settings.values.copiesAlways && to > from) this.show({ from: Math.max(0, from - 200), to });
    });
  }

  async show({ from, to }) {
    if (to <= from) return this.#say("There is nothing to look at yet.");
    this.#say("Comparing with the texts it learned from…");
    try {
      const text = this.editor.text.slice(from, to);
      const answer = await json("api/copies", { body: { model: this.settings.values.model, text } });
      if (answer.unavailable) return this.#say(sentence(answer.unavailable));
      this.found = answer.copies.map((copy) => ({ ...copy, from: from + unitsIn(text, copy.start), to: from + unitsIn(text, copy.end) }));
      if (!this.#mark()) return this.#say(NO_MARKS);
      this.list.replaceChildren(...this.found.map((copy) => this.#item(copy)));
      const count = this.found.length;
      this.#say(count ? `${count} ${count === 1 ? "passage is" : "passages are"} copied.` : "Nothing here is copied.");
      return true;
    } catch (error) {
      return this.#say(error.message);
    }
  }

  #item(copy) {
    const item = document.createElement("li");
    const where = document.createElement("span");
    const quote = document.createElement("blockquote");
    where.textContent = `${copy.words} words, as in ${copy.source}${copy.line ? `, line ${copy.line.toLocaleString()}` : ""}:`;
    quote.textContent = String(copy.around ?? "");
    item.append(where, quote, button("Show in the text", () => this.editor.jump(copy.from, copy.to)));
    return item;
  }

  #mark() {
    return mark(this.editor, "copied", this.found.map(({ from, to }) => [from, to]));
  }

  #shift({ from, removed, inserted }) {
    if (!this.found.length) return;
    const end = from + removed.length;
    const by = inserted.length - removed.length;
    const before = this.found.length;
    this.found = this.found.filter((copy) => copy.to <= from || copy.from >= end);
    for (const copy of this.found) if (copy.from >= end) [copy.from, copy.to] = [copy.from + by, copy.to + by];
    this.#mark();
    if (before !== this.found.length) this.list.replaceChildren(...this.found.map((copy) => this.#item(copy)));
  }

  #say(text) {
    this.line.textContent = text;
    return false;
  }

  clear() {
    this.found = [];
    this.#mark();
    this.#say("");
    this.list.replaceChildren();
    this.button.setAttribute("aria-pressed", "false");
  }
}
