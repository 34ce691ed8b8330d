// Where things are on the screen, and what a key deletes where the browser does not say.

const LINE = 30; // pixels
const CHARACTER = 8.5;

/** About how high a piece will be, in pixels: for the scroll bar, until it is drawn. */
export function estimatedHeight(piece, width) {
  const columns = Math.max(20, (width || 640) / CHARACTER);
  let lines = 0;
  for (const line of piece.split("\n")) lines += Math.max(1, Math.ceil(line.length / columns));
  return Math.round(Math.max(1, piece.endsWith("\n") ? lines - 1 : lines) * LINE);
}

/** The rectangle of the cursor before a character of a piece's element. */
export function caretRectangle(element, within) {
  const node = element.firstChild;
  const range = document.createRange();
  if (within < node.length && node.data[within] !== "\n") {
    range.setStart(node, within);
    range.setEnd(node, within + 1);
    const box = range.getClientRects()[0];
    if (box) return { top: box.top, bottom: box.bottom, left: box.left };
  }
  if (within > 0 && node.data[within - 1] !== "\n") {
    range.setStart(node, within - 1);
    range.setEnd(node, within);
    const box = [...range.getClientRects()].at(-1);
    if (box) return { top: box.top, bottom: box.bottom, left: box.right };
  }
  range.setStart(node, within);
  range.collapse(true);
  const box = range.getClientRects()[0];
  if (box) return { top: box.top, bottom: box.bottom, left: box.left };
  const all = element.getBoundingClientRect();
  const last = element.lastChild.nodeName === "BR" && within === node.length;
  return last ? { top: all.bottom - LINE, bottom: all.bottom, left: all.left } : { top: all.top, bottom: all.top + LINE, left: all.left };
}

/** What a deletion of this kind takes at a cursor: {from, to}. */
export function deletionRange(text, at, kind) {
  const before = text.slice(Math.max(0, at - 300), at);
  const after = text.slice(at, Math.min(text.length, at + 300));
  if (kind.includes("Word")) {
    if (kind.endsWith("Backward")) return { from: at - /(\s*[^\s]+|\s+)?$/.exec(before)[0].length, to: at };
    return { from: at, to: at + /^(\s*[^\s]+|\s+)?/.exec(after)[0].length };
  }
  if (kind.includes("Line")) {
    if (kind.endsWith("Backward")) return { from: at - /[^\n]*$/.exec(before)[0].length, to: at };
    return { from: at, to: at + /^[^\n]*/.exec(after)[0].length };
  }
  const letters = new Intl.Segmenter(undefined, { granularity: "grapheme" });
  if (kind.endsWith("Backward")) return { from: at - ([...letters.segment(before)].at(-1)?.segment.length ?? 0), to: at };
  return { from: at, to: at + ([...letters.segment(after)][0]?.segment.length ?? 0) };
}
