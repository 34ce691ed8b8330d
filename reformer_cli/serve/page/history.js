// What can be taken back. All of a continuation is one step, and so is a stretch of typing.

const STEPS = 500;
const PAUSE = 1200; // milliseconds after which typing begins a new step

function sameStretch(step, change, now) {
  const last = step.changes.at(-1);
  const next = change.from === last.from + last.inserted.length || change.from + change.removed.length === last.from;
  return next && now - step.time < PAUSE && !change.inserted.includes("\n");
}

export class History {
  constructor() {
    this.clear();
  }

  clear() {
    this.done = [];
    this.undone = [];
  }

  /** A change {from, removed, inserted}; group: what joins changes to one step ("typing", "composition", a continuation's number). */
  record(change, group, caret) {
    const step = this.done.at(-1);
    const now = performance.now();
    const joins = step && group && step.group === group && step.time > 0 && (group !== "typing" || sameStretch(step, change, now));
    if (joins) this.#join(step, change);
    else this.done.push({ group, changes: [{ ...change }], caret });
    this.done.at(-1).time = now;
    this.undone = [];
    if (this.done.length > STEPS) this.done.shift();
  }

  #join(step, change) {
    const last = step.changes.at(-1);
    if (!change.removed && change.from === last.from + last.inserted.length) last.inserted += change.inserted;
    else step.changes.push({ ...change });
  }

  /** The next thing typed begins a step of its own. */
  seal() {
    if (this.done.length) this.done.at(-1).time = -Infinity;
  }

  /** Changes that undo the last step, and where the cursor was before it; nothing where there is none. */
  undo() {
    const step = this.done.pop();
    if (!step) return null;
    this.undone.push(step);
    const changes = step.changes.map(({ from, removed, inserted }) => ({ from, removed: inserted, inserted: removed }));
    return { changes: changes.reverse(), caret: step.caret };
  }

  redo() {
    const step = this.undone.pop();
    if (!step) return null;
    this.done.push({ ...step, time: -Infinity });
    return { changes: step.changes, caret: null };
  }
}
