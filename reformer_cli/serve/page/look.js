// What the three closer looks share: the passage they look at, and marks on the text that change none of it.

/** Offsets {from, to} of what is selected, or else of what is in sight; at most `most` characters. */
export function passage(editor, most) {
  const { from, to } = editor.selection;
  if (to > from) return { from, to: Math.min(to, from + most) };
  const seen = inSight(editor);
  return { from: seen.from, to: Math.min(seen.to, seen.from + most) };
}

function inSight({ root, scroller, text }) {
  const view = scroller.getBoundingClientRect();
  const shown = [...root.children].map((element, index) => ({ index, box: element.getBoundingClientRect() }));
  const seen = shown.filter(({ box }) => box.bottom > view.top && box.top < view.bottom);
  if (!seen.length) return { from: 0, to: text.length };
  const [first, last] = [seen[0], seen.at(-1)];
  const share = (box, y) => Math.max(0, Math.min(1, (y - box.top) / Math.max(1, box.height)));
  const inside = ({ index, box }, y) => text.start(index) + Math.round(share(box, y) * text.pieces[index].length);
  return { from: lineStart(text, inside(first, view.top)), to: lineEnd(text, inside(last, view.bottom)) };
}

function lineStart(text, offset) {
  const before = text.slice(Math.max(0, offset - 600), offset);
  return offset - before.length + (before.lastIndexOf("\n") + 1);
}

function lineEnd(text, offset) {
  const after = text.slice(offset, Math.min(text.length, offset + 600));
  const end = after.indexOf("\n");
  return offset + (end < 0 ? after.length : end);
}

/** Marks by name: [[from, to], ...] each, in place of those before. False where the browser has no such marks. */
export function mark(editor, name, spans) {
  if (!globalThis.CSS?.highlights) return false;
  if (!spans.length) CSS.highlights.delete(name);
  else CSS.highlights.set(name, new Highlight(...spans.map(([from, to]) => editor.range(from, to))));
  return true;
}

/** A reason of the server's as a sentence. */
export function sentence(text) {
  const said = String(text);
  return said.charAt(0).toUpperCase() + said.slice(1) + (/[.!?]$/.test(said) ? "" : ".");
}

export const NO_MARKS = "This browser cannot mark words in a text. A newer one can (Chrome 105, Safari 17.2, Firefox 140).";

/** A button that switches something on and off. */
export function toggle(button, on, off) {
  button.addEventListener("click", async () => {
    if (button.getAttribute("aria-pressed") === "true") {
      button.setAttribute("aria-pressed", "false");
      off();
    } else {
      button.setAttribute("aria-pressed", String((await on()) !== false));
    }
  });
}
