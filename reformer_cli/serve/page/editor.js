// The text on the screen: one element a piece, each with one text node, in a container that the browser edits.
// The browser draws only pieces in sight (content-visibility). Every edit is caught before it happens, made in the
// model, and shown; what an input method writes cannot be caught and is read back from the screen.

import { History } from "./history.js";
import { caretRectangle, deletionRange, estimatedHeight } from "./geometry.js";
import { Text, clean } from "./text.js";

export class Editor extends EventTarget {
  constructor(root, scroller) {
    super();
    this.root = root;
    this.scroller = scroller;
    this.text = new Text();
    this.history = new History();
    this.shown = []; // the pieces' elements
    this.lastLine = document.createElement("br"); // may be empty: it needs something that the cursor can stand before
    this.composing = false;
    this.kept = { from: 0, to: 0 }; // the selection when the focus is elsewhere
    try {
      root.contentEditable = "plaintext-only";
    } catch {
      root.contentEditable = "true"; // edits are caught all the same
    }
    root.addEventListener("beforeinput", (event) => this.#beforeInput(event));
    root.addEventListener("input", () => this.#readBack());
    root.addEventListener("compositionstart", () => (this.composing = true));
    root.addEventListener("compositionend", () => {
      this.#readBack();
      this.composing = false;
      this.history.seal();
    });
    root.addEventListener("focus", () => this.select(this.kept.from, this.kept.to));
    root.addEventListener("blur", () => (this.kept = this.#inDocument()));
    root.addEventListener("keydown", (event) => this.#farKey(event));
    for (const name of ["copy", "cut"]) root.addEventListener(name, (event) => this.#copy(event));
    document.addEventListener("selectionchange", () => this.#selected());
    this.open("");
  }

  /** Show another text, with nothing to take back. */
  open(whole, caret = 0) {
    this.text.set(clean(whole));
    this.history.clear();
    this.#showAll();
    this.select(Math.min(caret, this.text.length));
    this.dispatchEvent(new CustomEvent("open"));
  }

  #showAll() {
    this.shown = this.text.pieces.map((piece) => this.#element(piece));
    this.root.replaceChildren(...this.shown);
    this.#markLast();
  }

  #element(piece) {
    const element = document.createElement("div");
    element.className = "piece";
    element.append(document.createTextNode(piece));
    element.style.containIntrinsicBlockSize = `auto ${estimatedHeight(piece, this.root.clientWidth)}px`;
    return element;
  }

  #markLast() {
    const last = this.shown.at(-1);
    if (last.lastChild !== this.lastLine) last.append(this.lastLine);
    this.root.classList.toggle("empty", this.text.length === 0);
  }

  #node(index) {
    return this.shown[index].firstChild;
  }

  // --- offsets and places on the screen

  offsetOf(node, within) {
    if (node === this.root) return this.text.start(Math.min(within, this.text.pieces.length));
    let element = node;
    while (element && element.parentNode !== this.root) element = element.parentNode;
    const index = this.shown.indexOf(element);
    if (index < 0) return null;
    const size = this.text.pieces[index].length;
    const inside = node === element.firstChild ? within : node === element && within === 0 ? 0 : size;
    return this.text.start(index) + Math.min(inside, size);
  }

  range(from, to) {
    const range = document.createRange();
    const a = this.text.locate(from);
    const b = this.text.locate(to);
    range.setStart(this.#node(a.index), a.within);
    range.setEnd(this.#node(b.index), b.within);
    return range;
  }

  /** {from, to, focus}: where the cursor was last, while the focus is elsewhere. */
  get selection() {
    if (document.activeElement === this.root) this.kept = this.#inDocument();
    return { focus: this.kept.to, ...this.kept };
  }

  #inDocument() {
    const found = document.getSelection();
    if (!found.anchorNode || !this.root.contains(found.anchorNode)) return this.kept;
    const anchor = this.offsetOf(found.anchorNode, found.anchorOffset);
    const focus = this.offsetOf(found.focusNode, found.focusOffset) ?? anchor;
    return { from: Math.min(anchor, focus), to: Math.max(anchor, focus), focus };
  }

  /** Select from an anchor to where the cursor is, or put the cursor somewhere; the focus moves here only if `focus`. */
  select(from, to = from, { focus = false } = {}) {
    this.kept = { from: Math.min(from, to), to: Math.max(from, to), focus: to };
    if (focus) this.root.focus({ preventScroll: true });
    if (focus || document.activeElement === this.root) {
      const { index, within } = this.text.locate(from);
      const end = this.text.locate(to);
      document.getSelection().setBaseAndExtent(this.#node(index), within, this.#node(end.index), end.within);
    }
  }

  /** Give the text the focus, unless that would raise the keyboard of a phone. */
  take() {
    if (matchMedia("(hover: hover)").matches) this.root.focus({ preventScroll: true });
  }

  #selected() {
    if (document.activeElement !== this.root || this.composing) return;
    this.kept = this.#inDocument();
    this.dispatchEvent(new CustomEvent("select"));
  }

  /** Where the cursor would stand, in the window. */
  place(offset) {
    const { index, within } = this.text.locate(offset);
    return caretRectangle(this.shown[index], within);
  }

  /** Whether an offset is in sight. */
  inSight(offset) {
    const view = this.scroller.getBoundingClientRect();
    const { top, bottom } = this.place(offset);
    return bottom > view.top && top < view.bottom;
  }

  reveal(offset, margin = 60) {
    const view = this.scroller.getBoundingClientRect();
    const { top, bottom } = this.place(offset);
    if (top < view.top + margin) this.scroller.scrollTop -= view.top + margin - top;
    else if (bottom > view.bottom - margin) this.scroller.scrollTop += bottom - view.bottom + margin;
  }

  /** Go to a passage far away: what lies between was never laid out, so its height is a guess that is mended twice. */
  jump(from, to = from) {
    this.#bring(from, this.scroller.clientHeight / 3);
    this.select(from, to, { focus: true });
  }

  #bring(offset, margin) {
    if (!this.inSight(offset)) this.shown[this.text.locate(offset).index].scrollIntoView({ block: "nearest" });
    for (let n = 0; n < 3; n += 1) this.reveal(offset, margin);
  }

  /** Keys that go to the ends of the text: a browser stops short of the end where that was never laid out. */
  #farKey(event) {
    const control = event.ctrlKey || event.metaKey;
    const { length } = this.text;
    const end = { End: length, ArrowDown: length, Home: 0, ArrowUp: 0 }[event.key];
    const ours = event.key.startsWith("Arrow") ? event.metaKey : event.ctrlKey;
    if (control && !event.altKey && event.key.toLowerCase() === "a") this.select(0, length);
    else if (ours && end !== undefined) {
      this.#bring(end, 60);
      const found = this.selection;
      const anchor = found.focus === found.from ? found.to : found.from;
      this.select(event.shiftKey ? anchor : end, end);
    } else return;
    event.preventDefault();
  }

  // --- changes

  /** A change of the user's or the program's. group: see History; caret: where the cursor goes, the end if not said. */
  edit(from, to, inserted, { group = null, caret = from + inserted.length, keep = false } = {}) {
    const before = this.selection;
    const change = this.text.replace(from, to, inserted);
    this.#show(change);
    this.history.record({ from, removed: change.removed, inserted }, group, [before.from, before.to]);
    if (!keep) this.select(caret);
    this.dispatchEvent(new CustomEvent("change", { detail: { from, removed: change.removed, inserted, group } }));
  }

  /** False where there is nothing to take back. */
  undo() {
    return this.#apply(this.history.undo());
  }

  redo() {
    return this.#apply(this.history.redo());
  }

  #apply(step) {
    if (!step) return false;
    let caret = 0;
    for (const { from, removed, inserted } of step.changes) {
      this.#show(this.text.replace(from, from + removed.length, inserted));
      caret = from + inserted.length;
      this.dispatchEvent(new CustomEvent("change", { detail: { from, removed, inserted, group: "history" } }));
    }
    const [from, to] = step.caret ?? [caret, caret];
    this.select(from, to);
    this.reveal(from);
    return true;
  }

  #show({ from, removed, inserted, index, gone, came }) {
    const node = gone === 1 && came === 1 ? this.#node(index) : null;
    if (node) {
      node.replaceData(from - this.text.start(index), removed.length, inserted); // marks on the rest of it stay
    } else {
      const fresh = this.text.pieces.slice(index, index + came).map((piece) => this.#element(piece));
      const old = this.shown.splice(index, gone, ...fresh);
      old[0].before(...fresh);
      for (const element of old) element.remove();
    }
    this.#markLast();
  }

  #beforeInput(event) {
    const kind = event.inputType;
    if (kind.includes("Composition") || this.composing) return;
    event.preventDefault();
    if (kind === "historyUndo") return this.undo();
    if (kind === "historyRedo") return this.redo();
    let { from, to } = this.selection;
    const target = event.getTargetRanges()[0];
    if (target && kind !== "insertFromPaste") {
      const start = this.offsetOf(target.startContainer, target.startOffset);
      const end = this.offsetOf(target.endContainer, target.endOffset);
      if (start !== null && end !== null) [from, to] = [start, end];
    }
    if (kind.startsWith("delete")) {
      if (from === to) ({ from, to } = deletionRange(this.text, from, kind));
      if (from !== to) this.#typed(from, to, "");
    } else if (kind === "insertParagraph" || kind === "insertLineBreak") {
      this.#typed(from, to, "\n");
    } else if (kind.startsWith("insert")) {
      const given = clean(event.dataTransfer?.getData("text/plain") || event.data || "");
      if (given) this.#typed(from, to, given);
    }
    return undefined;
  }

  #typed(from, to, inserted) {
    this.dispatchEvent(new CustomEvent("typing"));
    this.edit(from, to, inserted, { group: "typing" });
    this.reveal(from + inserted.length, 30);
  }

  #copy(event) {
    const { from, to } = this.selection;
    event.preventDefault();
    if (from === to) return;
    event.clipboardData.setData("text/plain", this.text.slice(from, to));
    if (event.type === "cut") this.#typed(from, to, "");
  }

  /** What an input method wrote: the piece with the cursor, or all of it where elements came or went. */
  #readBack() {
    const shown = [...this.root.children];
    const whole = shown.length !== this.text.pieces.length || shown.some((e) => e.firstChild?.nodeType !== Node.TEXT_NODE);
    const caret = this.selection.focus;
    const index = this.text.locate(Math.max(0, Math.min(caret, this.text.length) - 1)).index;
    const around = whole ? null : [index, Math.min(index + 1, shown.length - 1)];
    if (whole) this.#difference(0, this.text.whole(), shown.map((e) => e.textContent).join(""), caret, true);
    else for (const n of new Set(around)) this.#difference(this.text.start(n), this.text.pieces[n], shown[n].textContent, caret, false);
  }

  #difference(start, old, now, caret, rebuild) {
    if (old === now) return rebuild ? this.#showAll() : undefined;
    let a = 0;
    while (a < old.length && a < now.length && old[a] === now[a]) a += 1;
    let z = 0;
    while (z < old.length - a && z < now.length - a && old.at(-1 - z) === now.at(-1 - z)) z += 1;
    this.dispatchEvent(new CustomEvent("typing"));
    const inserted = clean(now.slice(a, now.length - z));
    const change = this.text.replace(start + a, start + old.length - z, inserted);
    const kept = { from: change.from, removed: change.removed, inserted };
    this.history.record(kept, this.composing ? "composition" : "typing", [change.from, change.from + change.removed.length]);
    if (rebuild || change.gone !== 1 || change.came !== 1) {
      this.#showAll();
      this.select(change.from + inserted.length);
    } else {
      this.#markLast();
    }
    this.dispatchEvent(new CustomEvent("change", { detail: { ...kept, group: "typing" } }));
    return undefined;
  }
}
