// Texts: saved by themselves in the browser, several of them, also while two tabs show the same one.

import { openStore } from "./store.js";

const AFTER = 800; // milliseconds after the last change
const AT_LATEST = 4000;
const LEFT = "reformer.left"; // what the page that was closed last had not saved yet
const AT_HAND = 500_000; // characters that are kept there as well

function fresh() {
  const id = Array.from(crypto.getRandomValues(new Uint8Array(9)), (byte) => byte.toString(36)).join("");
  return { id, title: "", revision: 0, changed: Date.now() };
}

/** Events: "state" ({text, alarm}: what to say of the saving), "list" (texts came or went), "notice". */
export class Documents extends EventTarget {
  constructor(editor) {
    super();
    this.editor = editor;
    this.head = fresh();
    this.waits = 0; // since when there is something to save; 0: nothing
    this.channel = typeof BroadcastChannel === "function" ? new BroadcastChannel("reformer") : null;
    this.channel?.addEventListener("message", ({ data }) => this.#elsewhere(data));
    editor.addEventListener("change", () => this.touch());
    document.addEventListener("visibilitychange", () => document.hidden && this.save());
    addEventListener("pagehide", () => this.#close());
    addEventListener("beforeunload", (event) => {
      if (this.waits && (this.failed || !this.store?.kept)) event.preventDefault();
    });
  }

  async begin() {
    this.store = await openStore();
    if (!this.store.kept) this.#state("This browser keeps nothing: save your text to a file before you close the page.", true);
    let last = null;
    try {
      last = localStorage.getItem("reformer.last");
    } catch {
      // nothing is remembered
    }
    await this.#takeOver();
    const heads = await this.list();
    const id = heads.some((head) => head.id === last) ? last : heads[0]?.id;
    if (id) await this.open(id);
    else this.editor.open("");
  }

  /** Newest first. */
  async list() {
    return (await this.store.list()).sort((a, b) => b.changed - a.changed);
  }

  touch() {
    this.head.changed = Date.now();
    this.waits ||= this.head.changed;
    this.#state("not saved yet");
    clearTimeout(this.timer);
    const rest = Math.max(0, this.waits + AT_LATEST - this.head.changed);
    this.timer = setTimeout(() => this.save(), Math.min(AFTER, rest));
  }

  /** One at a time: what changes while one is under way is saved by the next. */
  save() {
    clearTimeout(this.timer);
    this.saving = (this.saving ?? Promise.resolve()).then(() => this.#save());
    return this.saving;
  }

  #record() {
    const { text } = this.editor;
    return { ...this.head, revision: this.head.revision + 1, text: text.whole(), words: text.words };
  }

  /** The page goes: what is not saved yet, or may not be, is saved in one go. */
  #close() {
    if (!this.store || !(this.waits || this.writing)) return;
    if (this.behind) this.head = { ...fresh(), title: `${this.head.title || "No title yet"} (from another tab)` };
    try {
      const record = this.#record();
      this.store.writeNow(record);
      this.#remember(this.head.id);
      if (record.text.length < AT_HAND) localStorage.setItem(LEFT, JSON.stringify(record));
      this.head = { ...this.head, revision: this.head.revision + 1 }; // should the page come back
      this.waits = 0;
    } catch {
      // full, which was said before
    }
  }

  /** A page that is opened at once may look into the store before the one that went has written there. */
  async #takeOver() {
    try {
      const left = JSON.parse(localStorage.getItem(LEFT));
      const known = left && (await this.store.read(left.id));
      if (left && !(known?.revision >= left.revision)) await this.store.write(left, known?.revision);
      localStorage.removeItem(LEFT);
    } catch {
      // nothing was left, or there is no room
    }
  }

  async #save() {
    if (!this.waits || !this.store) return;
    const since = this.waits;
    this.waits = 0;
    const { head } = this;
    const record = this.#record();
    this.writing = true;
    try {
      if ((await this.store.write(record, head.revision)) === "conflict") return void (await this.#keepBoth(record));
      head.revision += 1;
      this.failed = false;
      this.#remember(head.id);
      this.channel?.postMessage({ id: head.id, revision: head.revision });
      if (!this.waits && this.store.kept) this.#state("saved");
      this.#listed();
    } catch {
      this.waits ||= since;
      this.failed = true;
      this.#state("Not saved: this browser's storage is full. Save your text to a file (Texts).", true);
    } finally {
      this.writing = false;
    }
  }

  /** Another tab saved the same text since: ours becomes a text of its own. */
  async #keepBoth(record) {
    const title = `${record.title || "No title yet"} (from another tab)`;
    this.head = { ...fresh(), title };
    this.behind = false;
    this.waits = Date.now();
    await this.#save();
    this.#notice("This text was changed in another tab too. Both are kept: this one under a name of its own.");
    this.dispatchEvent(new CustomEvent("title"));
  }

  async #elsewhere({ id, revision }) {
    this.#listed();
    if (id !== this.head.id || revision <= this.head.revision) return;
    this.behind = true;
    if (this.waits) return; // seen when it is saved
    const caret = this.editor.selection.from;
    const record = await this.store.read(id);
    if (record && !this.waits && this.head.id === id) this.#show(record, caret);
  }

  #show({ text, ...head }, caret) {
    this.head = head;
    this.behind = false;
    this.editor.open(text, caret ?? text.length);
    this.#state("saved");
    this.dispatchEvent(new CustomEvent("title"));
  }

  async open(id) {
    await this.save();
    const record = await this.store.read(id);
    if (!record) return this.#notice("This text is no longer there.");
    this.#show(record);
    this.#remember(id);
    return this.#listed();
  }

  async create(title = "", text = "") {
    await this.save();
    this.head = { ...fresh(), title };
    this.behind = false;
    this.editor.open(text);
    this.dispatchEvent(new CustomEvent("title"));
    if (text) this.touch();
    this.#state("");
    this.#listed();
  }

  async remove(id) {
    await this.save();
    await this.store.remove(id);
    try {
      if (JSON.parse(localStorage.getItem(LEFT))?.id === id) localStorage.removeItem(LEFT);
    } catch {
      // nothing was left
    }
    if (id === this.head.id) {
      this.waits = 0;
      const next = (await this.list())[0];
      if (next) await this.open(next.id);
      else await this.create();
    }
    this.#listed();
  }

  rename(title) {
    this.head.title = title.trim();
    this.touch();
  }

  #remember(id) {
    try {
      localStorage.setItem("reformer.last", id);
    } catch {
      // the newest is opened next time
    }
  }

  #state(text, alarm = false) {
    this.dispatchEvent(new CustomEvent("state", { detail: { text, alarm } }));
  }

  #notice(text) {
    this.dispatchEvent(new CustomEvent("notice", { detail: text }));
  }

  #listed() {
    this.dispatchEvent(new CustomEvent("list"));
  }
}
