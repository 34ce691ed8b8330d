// What the model looked back to when it came to the word at the cursor: passages far before it, with a jump to each.

import { json } from "./server.js";
import { mark } from "./look.js";
import { button } from "./texts.js";
import { unitsIn } from "./text.js";

const MOST = 20000; // characters before the word that are looked through

export class Remembered {
  constructor(editor, settings) {
    Object.assign(this, { editor, settings });
    this.line = document.getElementById("remembered-say");
    this.list = document.getElementById("remembered-list");
    document.getElementById("remembered").addEventListener("click", () => this.show());
    editor.addEventListener("open", () => this.clear());
    editor.addEventListener("change", () => this.list.children.length && this.clear());
  }

  async show() {
    const { editor } = this;
    const { text } = editor;
    const { from, to } = text.word(editor.selection.from);
    this.clear();
    if (from === to) return this.#say("Put the cursor on a word first.");
    const word = text.slice(from, to);
    this.#say(`Looking back from “${word}”…`);
    try {
      const start = Math.max(0, to - MOST);
      const read = text.slice(start, to);
      const position = text.points(from) - text.points(start);
      const body = { model: this.settings.values.model, text: read, position };
      const answer = await json("api/remembered", { body });
      if (answer.unavailable) return this.#say(answer.unavailable);
      const places = answer.places.map((place) => ({ ...place, from: start + unitsIn(read, place.start), to: start + unitsIn(read, place.end) }));
      const most = Math.max(...places.map((place) => place.weight), 0);
      mark(editor, "recalled", places.map((place) => [place.from, place.to]));
      this.list.replaceChildren(...places.map((place) => this.#item(place, most)));
      const count = places.length;
      return this.#say(count ? `For “${word}” it looked back to ${count} ${count === 1 ? "place" : "places"}, the most important first.`
        : `For “${word}” it looked back to nothing in particular.`);
    } catch (error) {
      return this.#say(error.message);
    }
  }

  #item({ from, to, weight, distance }, most) {
    const { text } = this.editor;
    const item = document.createElement("li");
    const quote = document.createElement("blockquote");
    const strong = document.createElement("b");
    const note = document.createElement("span");
    const start = Math.max(0, from - 60);
    strong.textContent = text.slice(from, to);
    quote.append(start ? "…" : "", text.slice(start, from), strong, text.slice(to, to + 60), "…");
    note.className = "note";
    const how = weight > most * 0.6 ? "strongly" : weight > most * 0.25 ? "somewhat" : "a little";
    note.textContent = `${how}; ${distance ? `${distance.toLocaleString()} tokens` : "some way"} back`;
    item.append(quote, note, button("Go there", () => this.editor.jump(from, to)));
    return item;
  }

  #say(line) {
    this.line.textContent = line;
  }

  clear() {
    mark(this.editor, "recalled", []);
    this.list.replaceChildren();
    this.#say("");
  }
}
