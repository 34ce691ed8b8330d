// A text as pieces of a few thousand characters, so that a key costs the same in a note and in a long novel.
// Pieces end where a line ends; only lines of more than LONGEST characters are cut within. Offsets are UTF-16 units,
// as everywhere in a browser; the server counts code points: points() and unitsIn() turn one into the other.

const WISHED = 3000;
const MOST = 6000;
const LONGEST = 20000;
const PAIR = /[\ud800-\udbff][\udc00-\udfff]/g;

/** What a user or a server hands in: one kind of line end, no halves of characters, no zero bytes. */
export function clean(text) {
  const lines = text.replace(/\r\n?/g, "\n").replaceAll("\0", "");
  return lines.toWellFormed ? lines.toWellFormed() : lines;
}

function pairs(text) {
  return text.match(PAIR)?.length ?? 0;
}

function words(text) {
  return text.match(/\S+/g)?.length ?? 0;
}

/** Pieces of a text: at least one, which may be empty. */
export function cut(text) {
  const pieces = [];
  let start = 0;
  while (text.length - start > MOST) {
    let end = text.lastIndexOf("\n", start + WISHED) + 1;
    if (end <= start) end = text.indexOf("\n", start + WISHED) + 1 || text.length;
    if (end - start > LONGEST) {
      end = text.lastIndexOf(" ", start + MOST) + 1;
      if (end <= start) end = start + MOST;
      if (/[\udc00-\udfff]/.test(text[end])) end += 1;
    }
    pieces.push(text.slice(start, end));
    start = end;
  }
  if (start < text.length || !pieces.length) pieces.push(text.slice(start));
  return pieces;
}

export class Text {
  constructor(whole = "") {
    this.set(whole);
  }

  set(whole) {
    this.pieces = cut(whole);
    this.pairs = this.pieces.map(pairs);
    this.counts = this.pieces.map(words);
    this.length = whole.length;
  }

  whole() {
    return this.pieces.join("");
  }

  get words() {
    return this.counts.reduce((sum, count) => sum + count, 0);
  }

  /** The piece that an offset lies in and where in it; between two pieces: the start of the second. */
  locate(offset) {
    let index = 0;
    let rest = Math.max(0, Math.min(offset, this.length));
    while (index < this.pieces.length - 1 && rest >= this.pieces[index].length) {
      rest -= this.pieces[index].length;
      index += 1;
    }
    return { index, within: rest };
  }

  /** Where a piece starts. */
  start(index) {
    let offset = 0;
    for (let n = 0; n < index; n += 1) offset += this.pieces[n].length;
    return offset;
  }

  slice(from, to = this.length) {
    if (to <= from) return "";
    const a = this.locate(from);
    const b = this.locate(to);
    if (a.index === b.index) return this.pieces[a.index].slice(a.within, b.within);
    const middle = this.pieces.slice(a.index + 1, b.index).join("");
    return this.pieces[a.index].slice(a.within) + middle + this.pieces[b.index].slice(0, b.within);
  }

  /**
   * Put `inserted` in place of what lies between two offsets.
   * Returns which pieces went and how many came: {from, removed, inserted, index, gone, came}.
   */
  replace(from, to, inserted) {
    const a = this.locate(from);
    const b = this.locate(to);
    const removed = this.slice(from, to);
    let joined = this.pieces[a.index].slice(0, a.within) + inserted + this.pieces[b.index].slice(b.within);
    let last = b.index;
    // A piece that no longer ends its line takes in the next one; one that became empty goes.
    while (last < this.pieces.length - 1 && (!joined.endsWith("\n") || joined.length < WISHED / 8)) {
      if (joined.length > LONGEST) break;
      joined += this.pieces[(last += 1)];
    }
    const fresh = cut(joined);
    const gone = last - a.index + 1;
    this.pieces.splice(a.index, gone, ...fresh);
    this.pairs.splice(a.index, gone, ...fresh.map(pairs));
    this.counts.splice(a.index, gone, ...fresh.map(words));
    this.length += inserted.length - removed.length;
    return { from, removed, inserted, index: a.index, gone, came: fresh.length };
  }

  /** Code points before an offset. */
  points(offset) {
    const { index, within } = this.locate(offset);
    let before = pairs(this.pieces[index].slice(0, within));
    for (let n = 0; n < index; n += 1) before += this.pairs[n];
    return offset - before;
  }

  /** The word around an offset: {from, to}; empty where there is none. */
  word(offset) {
    const before = /[\p{L}\p{N}'’-]*$/u.exec(this.slice(Math.max(0, offset - 100), offset))[0];
    const after = /^[\p{L}\p{N}'’-]*/u.exec(this.slice(offset, Math.min(this.length, offset + 100)))[0];
    return { from: offset - before.length, to: offset + after.length };
  }
}

/** The offset in a string that so many code points lie before. */
export function unitsIn(text, points) {
  if (!pairs(text)) return Math.min(points, text.length);
  let offset = 0;
  for (let n = 0; n < points && offset < text.length; n += 1) offset += text.codePointAt(offset) > 0xffff ? 2 : 1;
  return offset;
}
