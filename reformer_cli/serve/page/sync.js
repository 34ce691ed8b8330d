// The server's copy of the text: only what changed is sent, so that a long text goes over once.

import { Trouble, json } from "./server.js";

export class Sync {
  constructor(editor, settings) {
    Object.assign(this, { editor, settings });
    this.#forget();
    editor.addEventListener("change", ({ detail }) => (this.same = Math.min(this.same, detail.from)));
    editor.addEventListener("open", () => this.#forget());
  }

  /** Another name than any other tab's, so that two tabs of one text never mix theirs. */
  #forget() {
    this.name = Array.from(crypto.getRandomValues(new Uint8Array(12)), (byte) => byte.toString(16).padStart(2, "0")).join("");
    this.same = 0; // the server's copy begins with so much of the text
  }

  /**
   * Call `use` with {document, at} for what stands before an offset; again where the server lost its copy meanwhile.
   * With {prompt}, where only the end of it is to be read.
   */
  async with(at, use, signal) {
    const { reach } = this.settings;
    if (at > 1.5 * reach) return use({ prompt: this.editor.text.slice(this.#begin(at - reach, reach), at) });
    for (let tries = 0; ; tries += 1) {
      try {
        return await use(await this.#send(at, signal));
      } catch (error) {
        if (!(error instanceof Trouble) || ![404, 409].includes(error.status) || tries > 0) throw error;
        this.#forget();
      }
    }
  }

  /** The line from which it reads: the same one for a while, so that the server knows what it has read. */
  #begin(offset, reach) {
    const step = Math.floor(offset / (reach / 2)) * (reach / 2);
    return step + this.editor.text.slice(step, step + 2000).indexOf("\n") + 1;
  }

  async #send(at, signal) {
    const { text } = this.editor;
    const from = this.same;
    if (from < at || from === 0) {
      const body = { from: text.points(from), text: text.slice(from, at) };
      this.same = at; // a change while it is on its way lowers it
      try {
        await json(`api/documents/${this.name}`, { body, signal });
      } catch (error) {
        this.same = Math.min(this.same, from);
        throw error;
      }
    }
    return { document: this.name, at: text.points(at) };
  }
}
