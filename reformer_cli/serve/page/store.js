// Where texts are kept: IndexedDB; localStorage where that is closed; memory where both are. A text that another tab
// saved since it was read is never written over: write() says "conflict".

function done(request) {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

class Indexed {
  kept = true;

  constructor(database) {
    this.database = database;
  }

  static async open() {
    const request = indexedDB.open("reformer", 1);
    request.onupgradeneeded = () => {
      request.result.createObjectStore("heads", { keyPath: "id" });
      request.result.createObjectStore("texts");
    };
    return new Indexed(await done(request));
  }

  async list() {
    return done(this.database.transaction("heads").objectStore("heads").getAll());
  }

  async read(id) {
    const both = this.database.transaction(["heads", "texts"]);
    const [head, text] = await Promise.all([done(both.objectStore("heads").get(id)), done(both.objectStore("texts").get(id))]);
    return head && { ...head, text: text ?? "" };
  }

  async write({ text, ...head }, expected) {
    const both = this.database.transaction(["heads", "texts"], "readwrite");
    const finished = new Promise((resolve, reject) => {
      both.oncomplete = () => resolve("written");
      both.onabort = () => reject(both.error);
    });
    const old = await done(both.objectStore("heads").get(head.id));
    if (old && old.revision !== expected) return "conflict";
    both.objectStore("heads").put(head);
    both.objectStore("texts").put(text, head.id);
    return finished;
  }

  /** At once, without a look at what is there: the page is being closed, and nothing that waits would be done. */
  writeNow({ text, ...head }) {
    const both = this.database.transaction(["heads", "texts"], "readwrite");
    both.objectStore("heads").put(head);
    both.objectStore("texts").put(text, head.id);
    both.commit();
  }

  async remove(id) {
    const both = this.database.transaction(["heads", "texts"], "readwrite");
    both.objectStore("texts").delete(id);
    return done(both.objectStore("heads").delete(id));
  }
}

const PREFIX = "reformer.text.";

/** A Storage, or a Map that looks like one. */
class Simple {
  constructor(storage, kept) {
    this.storage = storage;
    this.kept = kept;
  }

  async list() {
    const keys = Array.from({ length: this.storage.length }, (_, n) => this.storage.key(n));
    const texts = keys.filter((key) => key.startsWith(PREFIX)).map((key) => JSON.parse(this.storage.getItem(key)));
    return texts.map(({ text, ...head }) => head);
  }

  async read(id) {
    return JSON.parse(this.storage.getItem(PREFIX + id)) ?? undefined;
  }

  async write(record, expected) {
    const old = await this.read(record.id);
    if (old && old.revision !== expected) return "conflict";
    this.writeNow(record);
    return "written";
  }

  writeNow(record) {
    this.storage.setItem(PREFIX + record.id, JSON.stringify(record));
  }

  async remove(id) {
    this.storage.removeItem(PREFIX + id);
  }
}

class Memory extends Map {
  get length() {
    return this.size;
  }

  key(n) {
    return [...this.keys()][n];
  }

  getItem(key) {
    return this.get(key) ?? null;
  }

  setItem(key, value) {
    this.set(key, value);
  }

  removeItem(key) {
    this.delete(key);
  }
}

export async function openStore() {
  try {
    return await Indexed.open();
  } catch {
    // a private window, or storage switched off
  }
  try {
    localStorage.setItem("reformer.trial", "");
    localStorage.removeItem("reformer.trial");
    return new Simple(localStorage, true);
  } catch {
    return new Simple(new Memory(), false);
  }
}
