// How it writes, and how the page looks; kept in the browser. The names are those of the server's sampling settings.

const LENGTHS = {
  sentence: ["One sentence", { stop_at: "sentence", max_tokens: 150 }],
  paragraph: ["One paragraph", { stop_at: "paragraph", max_tokens: 600 }],
  "100 words": ["About 100 words", { max_words: 100, max_tokens: 600 }],
  "400 words": ["About 400 words", { max_words: 400, max_tokens: 2400 }],
  scene: ["To the end of the scene", { stop_at: "scene", max_tokens: 5000 }],
  way: ["", { stop_at: "sentence", max_tokens: 60 }], // of the three to choose from
  endless: ["Until I stop it", { max_tokens: 20000 }],
};
const REACHES = { all: ["All of it", Infinity], far: ["The last 20,000 words", 120000], near: ["The last 2,000 words", 12000] };
const SLIDERS = ["temperature", "top_p", "dry_multiplier"];
const USUAL = { temperature: 0.95, top_p: 0.95, dry_multiplier: 0.8 };
const BEGIN = { preset: "plain", length: "paragraph", reach: "all", seed: "", model: "", theme: "auto", size: 18, copiesAlways: false };
const KEY = "reformer.settings";

const $ = (id) => document.getElementById(id);

function words(name, value) {
  if (name === "temperature") {
    const named = [[0.05, "none"], [0.65, "timid"], [0.85, "calm"], [1.0, "lively"], [1.2, "bold"], [9, "reckless"]];
    return `${value.toFixed(2)}, ${named.find(([most]) => value <= most)[1]}`;
  }
  if (name === "top_p") return value >= 1 ? "none left out" : `the last ${Math.round((1 - value) * 100)} %`;
  return value === 0 ? "off" : value.toFixed(1);
}

export class Settings extends EventTarget {
  constructor() {
    super();
    this.presets = []; // until the server has told them
    this.values = { ...BEGIN, ...USUAL };
    this.#read();
    this.#build();
    this.#show();
  }

  #read() {
    try {
      const kept = JSON.parse(localStorage.getItem(KEY) ?? "{}");
      for (const name of Object.keys(this.values)) if (typeof kept[name] === typeof this.values[name]) this.values[name] = kept[name];
    } catch {
      // begin as usual
    }
    if (!LENGTHS[this.values.length]?.[0]) this.values.length = BEGIN.length;
    if (!(this.values.reach in REACHES)) this.values.reach = BEGIN.reach;
  }

  set(changed) {
    Object.assign(this.values, changed);
    try {
      localStorage.setItem(KEY, JSON.stringify(this.values));
    } catch {
      // not kept
    }
    this.#show();
    this.dispatchEvent(new CustomEvent("change"));
  }

  #build() {
    for (const [value, [label]] of Object.entries(LENGTHS)) if (label) $("length").append(new Option(label, value));
    for (const [value, [label]] of Object.entries(REACHES)) $("reach").append(new Option(label, value));
    $("reach").addEventListener("change", () => this.set({ reach: $("reach").value }));
    for (const name of SLIDERS) $(name).addEventListener("input", () => this.set({ [name]: Number($(name).value) }));
    $("length").addEventListener("change", () => this.set({ length: $("length").value }));
    $("seed").addEventListener("input", () => this.set({ seed: $("seed").value.replace(/\D/g, "").slice(0, 15) }));
    $("model").addEventListener("change", () => this.set({ model: $("model").value }));
    $("reset").addEventListener("click", () => this.set({ ...this.#ofPreset("plain"), preset: "plain", length: BEGIN.length, reach: BEGIN.reach, seed: "" }));
    $("size").addEventListener("input", () => this.set({ size: Number($("size").value) }));
    $("copies-always").addEventListener("change", () => this.set({ copiesAlways: $("copies-always").checked }));
    for (const one of document.getElementsByName("theme")) one.addEventListener("change", () => this.set({ theme: one.value }));
    this.#buildPresets();
  }

  #buildPresets() {
    const made = this.presets.map(({ name, said }) => {
      const label = document.createElement("label");
      const radio = document.createElement("input");
      const note = document.createElement("span");
      Object.assign(radio, { type: "radio", name: "preset", value: name });
      radio.addEventListener("change", () => this.set({ ...this.#ofPreset(name), preset: name }));
      Object.assign(note, { className: "note", textContent: said ?? "" });
      label.append(radio, name, note);
      return label;
    });
    $("presets").replaceChildren($("presets").firstElementChild, ...made);
  }

  #ofPreset(name) {
    const { numbers = {} } = this.presets.find((preset) => preset.name === name) ?? {};
    return Object.fromEntries(SLIDERS.map((slider) => [slider, numbers[slider] ?? USUAL[slider]]));
  }

  /** As the server has them: [{name, said, numbers}]. */
  offer(presets) {
    this.presets = presets;
    this.#buildPresets();
    this.#show();
  }

  /** Runs [{name, ...}] to choose from; `first` where the chosen one is no more. */
  offerModels(runs, first) {
    const names = runs.map((run) => run.name);
    if ([...$("model").options].map((option) => option.value).join() !== names.join()) {
      $("model").replaceChildren(...names.map((name) => new Option(name, name)));
    }
    if (names.length && !names.includes(this.values.model)) this.set({ model: names.includes(first) ? first : names[0] });
    this.#show();
  }

  #show() {
    const { values } = this;
    for (const name of SLIDERS) {
      $(name).value = values[name];
      $(`${name}-say`).textContent = words(name, values[name]);
      $(name).setAttribute("aria-valuetext", words(name, values[name]));
    }
    for (const radio of document.getElementsByName("preset")) radio.checked = radio.value === values.preset;
    for (const radio of document.getElementsByName("theme")) radio.checked = radio.value === values.theme;
    if ($("seed").value !== values.seed) $("seed").value = values.seed;
    $("length").value = values.length;
    $("reach").value = values.reach;
    $("model").value = values.model;
    $("size").value = values.size;
    $("size-say").textContent = `${values.size} pixels`;
    $("copies-always").checked = values.copiesAlways;
    document.documentElement.dataset.theme = values.theme;
    document.documentElement.style.setProperty("--size", `${values.size}px`);
  }

  /** Characters before the cursor that the model reads. */
  get reach() {
    return REACHES[this.values.reach][1];
  }

  /** The part of a request that says how to write; length: other than the chosen one. */
  request(length = this.values.length) {
    const { model, preset, seed } = this.values;
    const sliders = Object.fromEntries(SLIDERS.map((name) => [name, this.values[name]]));
    return { model, preset, ...sliders, ...LENGTHS[length][1], ...(seed === "" ? {} : { seed: Number(seed) }) };
  }
}
