// The tokens' probability as a shade, word by word: the stronger, the less the model expected it.

import { json } from "./server.js";
import { NO_MARKS, mark, passage, toggle } from "./look.js";
import { unitsIn } from "./text.js";

const BOUNDS = [0.1, 0.02, 0.004, 0.0005]; // of a word's probability: below the first, shade 1, ... below the last, shade 4
const MOST = 8000; // characters
const BEFORE = 3000; // that the model reads first

/** Tokens {from, to, logprob, rank} as words: a word is as likely as its parts after each other. */
function words(text, tokens) {
  const made = [];
  for (const { from, to, logprob, rank } of tokens) {
    const part = text.slice(from, to);
    const begin = from + part.length - part.trimStart().length;
    const last = made.at(-1);
    if (last && last.to === begin && /[\p{L}\p{N}’']$/u.test(text.slice(last.from, last.to)) && /^[\p{L}\p{N}’']/u.test(part)) {
      Object.assign(last, { to, logprob: last.logprob + logprob, rank: null });
    } else if (part.trim()) {
      made.push({ from: begin, to: begin + part.trim().length, logprob, rank });
    }
  }
  return made;
}

export class Shade {
  constructor(editor, settings) {
    Object.assign(this, { editor, settings });
    this.button = document.getElementById("shade");
    this.line = document.getElementById("shade-say");
    this.tokens = [];
    toggle(this.button, () => this.show(), () => this.clear());
    editor.addEventListener("select", () => this.tokens.length && this.#tell());
    editor.addEventListener("open", () => this.clear());
    editor.addEventListener("change", ({ detail }) => this.#shift(detail));
  }

  /** The server's rank: how many tokens were likelier. */
  async show() {
    const { text } = this.editor;
    const { from, to } = passage(this.editor, MOST);
    if (to <= from) return this.#say("There is nothing to shade yet.");
    this.#say("Reading…");
    try {
      const start = Math.max(0, from - BEFORE);
      const read = text.slice(start, to);
      const { tokens } = await json("api/probabilities", { body: { model: this.settings.values.model, text: read } });
      const place = (points) => start + unitsIn(read, points);
      const known = tokens.filter((token) => token.logprob !== null);
      this.tokens = words(read, known.map((token) => ({ ...token, from: place(token.start) - start, to: place(token.end) - start })))
        .map((word) => ({ ...word, from: word.from + start, to: word.to + start })).filter((word) => word.from >= from);
      if (!this.#mark()) return this.#say(NO_MARKS);
      mark(this.editor, "written", []); // its green would be hard to read on a shade
      document.getElementById("shade-legend").hidden = false;
      this.#say("Put the cursor on a word to see how likely it was.");
      return true;
    } catch (error) {
      return this.#say(error.message);
    }
  }

  #say(text) {
    this.line.textContent = text;
    return false;
  }

  #mark() {
    const levels = [1, 2, 3, 4].map((level) => this.tokens.filter((token) => this.#level(token) === level));
    return levels.map((tokens, n) => mark(this.editor, `shade-${n + 1}`, tokens.map(({ from, to }) => [from, to]))).every(Boolean);
  }

  #level({ logprob }) {
    return BOUNDS.filter((bound) => Math.exp(logprob) < bound).length;
  }

  /** What was changed since has no shade; what comes after it moves along. */
  #shift({ from, removed, inserted }) {
    if (!this.tokens.length) return;
    const end = from + removed.length;
    const by = inserted.length - removed.length;
    this.tokens = this.tokens.filter((token) => token.to <= from || token.from >= end);
    for (const token of this.tokens) if (token.from >= end) [token.from, token.to] = [token.from + by, token.to + by];
    this.#mark();
  }

  #tell() {
    const at = this.editor.selection.focus;
    const token = this.tokens.find(({ from, to }) => from <= at && at < to);
    if (!token) return this.#say("Put the cursor on a shaded word to see how likely it was.");
    const word = this.editor.text.slice(token.from, token.to).trim() || "this space";
    const chance = Math.exp(token.logprob);
    const share = chance > 0.1 ? `${Math.round(chance * 100)} in 100` : `1 in ${Math.round(1 / Math.max(chance, 1e-9)).toLocaleString()}`;
    const place = token.rank === 0 ? "was the model's first guess" : `was the model's guess number ${((token.rank ?? 0) + 1).toLocaleString()}`;
    return this.#say(token.rank === null ? `“${word}”: its chance was ${share}.` : `“${word}” ${place}; its chance was ${share}.`);
  }

  clear() {
    this.tokens = [];
    this.#mark();
    this.#say("");
    this.button.setAttribute("aria-pressed", "false");
    document.getElementById("shade-legend").hidden = true;
  }
}
