// The panel "Texts": which there are, opening a file, saving to one.

import { ask } from "./server.js";
import { clean } from "./text.js";

const LARGEST = 50_000_000; // bytes of a file that is opened

export function button(label, action, attributes = {}) {
  const made = document.createElement("button");
  made.type = "button";
  made.textContent = label;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.addEventListener("click", action);
  return made;
}

export class Texts {
  constructor(documents, editor, say) {
    Object.assign(this, { documents, editor, say });
    this.list = document.getElementById("text-list");
    this.title = document.getElementById("title");
    const file = document.getElementById("file");
    document.getElementById("new-text").addEventListener("click", () => this.#new());
    document.getElementById("open-file").addEventListener("click", () => file.click());
    file.addEventListener("change", () => this.#openFile(file));
    for (const one of document.querySelectorAll("[data-export]")) one.addEventListener("click", () => this.#export(one.dataset.export));
    this.title.addEventListener("input", () => documents.rename(this.title.value));
    this.title.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && !event.ctrlKey && !event.metaKey) editor.root.focus();
    });
    documents.addEventListener("title", () => this.#showTitle());
    documents.addEventListener("list", () => this.#show());
    documents.addEventListener("notice", ({ detail }) => this.say(detail, true));
  }

  #showTitle() {
    this.title.value = this.documents.head.title;
    document.title = `${this.documents.head.title || "No title yet"} – reformer`;
  }

  async #show() {
    const heads = await this.documents.list();
    this.list.replaceChildren(...heads.map((head) => this.#item(head)));
  }

  #item(head) {
    const item = document.createElement("li");
    const name = head.title || "No title yet";
    const open = button(name, () => this.documents.open(head.id));
    const note = document.createElement("span");
    note.className = "note";
    note.textContent = `${(head.words ?? 0).toLocaleString()} words, ${new Date(head.changed).toLocaleString()}`;
    open.append(note);
    if (head.id === this.documents.head.id) item.setAttribute("aria-current", "true");
    item.append(open, button("Delete", () => this.#delete(head.id, name), { "aria-label": `Delete ${name}` }));
    return item;
  }

  #delete(id, name) {
    if (confirm(`Delete “${name}”? It cannot be brought back.`)) this.documents.remove(id);
  }

  async #new() {
    await this.documents.create();
    this.editor.select(0, 0, { focus: true });
  }

  async #openFile(field) {
    const [file] = field.files;
    field.value = "";
    if (!file) return;
    if (file.size > LARGEST) return void this.say(`${file.name} is larger than ${LARGEST / 1e6} MB.`, true);
    const bytes = await file.arrayBuffer();
    let text;
    try {
      text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
    } catch {
      text = new TextDecoder("windows-1252").decode(bytes); // what older programs of Windows wrote
    }
    if (/[\0-\x08]/.test(text.slice(0, 10000))) return void this.say(`${file.name} is no plain text. Save it as .txt and open that.`, true);
    await this.documents.create(file.name.replace(/\.[^.]*$/, ""), clean(text));
  }

  async #export(format) {
    const name = (this.documents.head.title || "text").replace(/[^\p{L}\p{N} _-]+/gu, "_");
    const text = this.editor.text.whole();
    try {
      const made = format === "txt"
        ? new Blob([text], { type: "text/plain;charset=utf-8" }) // without the server, which may be away
        : await (await ask("api/export", { body: { text, format, title: this.documents.head.title } })).blob();
      download(made, `${name}.${format}`);
      this.say(`Saved as ${name}.${format} in your downloads.`);
    } catch (error) {
      this.say(`${error.message} Plain text (.txt) can always be saved.`, true);
    }
  }
}

export function download(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}
