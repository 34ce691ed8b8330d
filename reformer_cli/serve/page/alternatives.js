// Tab: three ways to go on, side by side below the cursor, to choose from.

import { clean } from "./text.js";
import { json } from "./server.js";

const WAYS = 3;

export class Alternatives {
  constructor(editor, sync, settings, say) {
    Object.assign(this, { editor, sync, settings, say });
    this.box = document.getElementById("ways");
    this.list = document.getElementById("ways-list");
    this.asking = null;
    this.box.addEventListener("keydown", (event) => this.#key(event));
    document.getElementById("ways-again").addEventListener("click", () => this.show());
    document.getElementById("ways-close").addEventListener("click", () => this.close());
    editor.addEventListener("change", () => this.open && this.#hide());
    editor.addEventListener("open", () => this.#hide());
  }

  get open() {
    return !this.box.hidden || this.asking !== null;
  }

  async show() {
    this.asking?.abort();
    const asking = (this.asking = new AbortController());
    const at = this.editor.selection.to;
    this.say("Thinking of three ways to go on…");
    try {
      const body = { ...this.settings.request("way"), n: WAYS };
      const use = (context) => json("api/alternatives", { body: { ...body, ...context }, signal: asking.signal });
      const { texts } = await this.sync.with(at, use, asking.signal);
      if (asking.signal.aborted) return;
      this.say("");
      this.#offer(at, texts.map((text) => clean(String(text))).filter((text) => text.trim()));
    } catch (error) {
      if (!asking.signal.aborted) this.say(error.message, true);
    } finally {
      if (this.asking === asking) this.asking = null;
    }
  }

  #offer(at, texts) {
    if (!texts.length) return this.say("The model had nothing to add here.");
    this.at = at;
    this.list.replaceChildren(...texts.map((text, n) => this.#button(text, n)));
    this.box.hidden = false;
    this.#put(at);
    this.list.firstChild.focus({ preventScroll: true });
    return undefined;
  }

  /** Below the cursor's line, which is scrolled up to where there is room for it. */
  #put(at) {
    const { editor, box } = this;
    const desk = box.parentElement.getBoundingClientRect();
    const most = desk.height - box.offsetHeight - 12;
    editor.reveal(at, 30);
    const over = editor.place(at).bottom - desk.top - most;
    if (over > 0) editor.scroller.scrollTop += over;
    box.style.top = `${Math.max(0, Math.min(editor.place(at).bottom - desk.top + 6, desk.height - box.offsetHeight - 6))}px`;
  }

  #button(text, n) {
    const button = document.createElement("button");
    const key = document.createElement("kbd");
    const words = document.createElement("span");
    button.type = "button";
    key.textContent = String(n + 1);
    key.ariaHidden = "true";
    words.textContent = text.trim();
    button.append(words, key);
    button.addEventListener("click", () => this.#take(text));
    return button;
  }

  #take(text) {
    this.#hide();
    this.editor.edit(this.at, this.at, text, { group: `way ${performance.now()}` });
    this.editor.select(this.at + text.length);
    this.editor.take();
    this.editor.reveal(this.at + text.length);
  }

  close() {
    this.#hide();
    this.editor.take();
  }

  #hide() {
    this.asking?.abort();
    this.asking = null;
    this.box.hidden = true;
  }

  #key(event) {
    const buttons = [...this.list.children];
    const here = buttons.indexOf(document.activeElement);
    const next = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    const number = event.ctrlKey || event.metaKey || event.altKey ? 0 : Number(event.key);
    if (event.key === "Escape") this.close();
    else if (event.key === "Tab" && !event.shiftKey && here >= 0) this.show();
    else if (number >= 1 && number <= buttons.length) buttons[number - 1].click();
    else if (next && here >= 0) buttons[(here + next + buttons.length) % buttons.length].focus();
    else return;
    event.preventDefault();
    event.stopPropagation();
  }
}
