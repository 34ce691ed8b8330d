// "Go on": a continuation is streamed into the text at the cursor. Typing stops it; taking it back takes all of it.

import { clean } from "./text.js";
import { completion } from "./server.js";

const PATIENCE = 3000; // milliseconds without a word, after which it says what it is doing
const WRITING = "Writing… Esc stops.";
const READING = "It reads your text first, which takes a while the first time. “How it writes” can let it read less. Esc stops.";

export class Writer extends EventTarget {
  constructor(editor, sync, settings, say) {
    super();
    Object.assign(this, { editor, sync, settings, say });
    this.running = null;
    this.number = 0;
    editor.addEventListener("typing", () => this.stop());
    editor.addEventListener("open", () => this.stop());
  }

  get writing() {
    return this.running !== null;
  }

  stop() {
    this.running?.abort();
  }

  /** Write at the cursor, or behind what is selected, until the model, the length or the writer ends it. */
  async goOn() {
    if (this.writing) return;
    const { editor } = this;
    const running = (this.running = new AbortController());
    const start = editor.selection.to;
    const job = { running, at: start, waiting: "", frame: 0, group: `continuation ${(this.number += 1)}` };
    this.dispatchEvent(new CustomEvent("begin"));
    this.say(WRITING);
    const slow = setTimeout(() => this.say(READING), PATIENCE);
    try {
      await this.sync.with(start, async (context) => {
        const body = { ...this.settings.request(), ...context };
        for await (const { text } of completion(body, running.signal)) {
          if (running.signal.aborted) break;
          if (text && job.at === start && !job.waiting) this.#started(slow);
          job.waiting += clean(text);
          job.frame ||= requestAnimationFrame(() => this.#show(job));
        }
      }, running.signal);
      this.say(job.at + job.waiting.length === start ? "The model had nothing to add here." : "");
    } catch (error) {
      if (!running.signal.aborted) this.say(error.message, true);
    } finally {
      clearTimeout(slow);
      this.#end(job, start);
    }
  }

  #started(slow) {
    clearTimeout(slow);
    this.say(WRITING);
  }

  #end(job, start) {
    cancelAnimationFrame(job.frame);
    if (!job.running.signal.aborted) this.#show(job);
    else this.say("Stopped.");
    this.running = null;
    this.editor.history.seal();
    this.dispatchEvent(new CustomEvent("end", { detail: { from: start, to: job.at } }));
  }

  #show(job) {
    job.frame = 0;
    if (!job.waiting || job.running.signal.aborted) return;
    const { editor } = this;
    const { from, to } = editor.selection;
    const follows = from === to && from === job.at;
    const seen = editor.inSight(job.at);
    const text = job.waiting;
    job.waiting = "";
    editor.edit(job.at, job.at, text, { group: job.group, keep: !follows });
    job.at += text.length;
    if (seen) editor.reveal(job.at, 90);
    this.dispatchEvent(new CustomEvent("written", { detail: { text, to: job.at } }));
  }
}

/** What is written, said to a screen reader sentence by sentence. */
export function readOut(writer, element) {
  let rest = "";
  const flush = (text) => {
    if (text.trim()) element.textContent = text.trim();
  };
  writer.addEventListener("written", ({ detail }) => {
    rest += detail.text;
    const end = Math.max(...[". ", "! ", "? ", ".”", "\n"].map((mark) => rest.lastIndexOf(mark)));
    if (end < 0) return;
    flush(rest.slice(0, end + 2));
    rest = rest.slice(end + 2);
  });
  writer.addEventListener("end", () => {
    flush(rest);
    rest = "";
  });
}
