// What the model looked back to when it came to the word at the cursor: passages far before it, with a jump to each.

import { json } from "./server.js";
import { mark, sentence } from "./look.js";
import { button } from "./texts.js";
import { unitsIn } from "./text.js";

const MOST = 20000; // characters before the word that are looked through

/** Places next to each other are one passage; the heaviest first. */
function joined(places, text) {
  const made = [];
  for (const place of places.sort((a, b) => a.from - b.from)) {
    const part = text.slice(place.from, place.to);
    const from = place.from + part.length - part.trimStart().length;
    const last = made.at(-1);
    if (last && /^\s*$/.test(text.slice(last.to, from))) Object.assign(last, { to: place.to, weight: last.weight + place.weight });
    else if (part.trim()) made.push({ ...place, from });
  }
  return made.sort((a, b) => b.weight - a.weight);
}

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
      if (answer.unavailable) return this.#say(sentence(answer.unavailable));
      const places = joined(answer.places.map((one) => ({ ...one, from: unitsIn(read, one.start), to: unitsIn(read, one.end) })), read)
        .map((one) => ({ ...one, from: one.from + start, to: one.to + start }));
      const most = Math.max(...places.map((place) => place.weight), 0);
      mark(editor, "recalled", places.map((place) => [place.from, place.to]));
      this.list.replaceChildren(...places.map((place) => this.#item(place, most, from)));
      const count = places.length;
      return this.#say(count ? `For “${word}” it looked back to ${count} ${count === 1 ? "place" : "places"}, the most important first.`
        : `For “${word}” it looked back to nothing in particular.`);
    } catch (error) {
      return this.#say(error.message);
    }
  }

  #item({ from, to, weight }, most, here) {
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
    const between = text.slice(to, here).match(/\S+/g)?.length ?? 0;
    note.textContent = `${how}; ${between.toLocaleString()} ${between === 1 ? "word" : "words"} before`;
    item.append(quote, note, button("Go there", () => this.editor.jump(from, to)));
    return item;
  }

  #say(line) {
    this.line.textContent = line;
    this.list.lastElementChild?.scrollIntoView({ block: "nearest" });
    if (line) this.line.scrollIntoView({ block: "nearest" });
  }

  clear() {
    mark(this.editor, "recalled", []);
    this.list.replaceChildren();
    this.#say("");
  }
}
