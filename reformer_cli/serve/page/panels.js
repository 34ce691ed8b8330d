// The panels beside the text (over it on a phone): one at a time, opened and closed by its button.

export class Panels extends EventTarget {
  constructor() {
    super();
    this.side = document.getElementById("side");
    this.buttons = [...document.querySelectorAll("[data-panel]")];
    for (const one of this.buttons) one.addEventListener("click", () => this.toggle(one.dataset.panel));
    document.getElementById("close-panel").addEventListener("click", () => this.close());
    this.side.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && !event.defaultPrevented) this.close();
    });
  }

  toggle(name, { focus = true } = {}) {
    if (this.shown === name) return this.close();
    this.shown = name;
    this.#show();
    if (focus) document.getElementById(`${name}-heading`).focus();
    return undefined;
  }

  close() {
    const button = this.buttons.find((one) => one.dataset.panel === this.shown);
    this.shown = null;
    this.#show();
    button?.focus();
  }

  #show() {
    this.side.hidden = !this.shown;
    for (const one of this.buttons) {
      const open = one.dataset.panel === this.shown;
      one.setAttribute("aria-expanded", String(open));
      document.getElementById(`panel-${one.dataset.panel}`).hidden = !open;
      if (open) this.side.setAttribute("aria-label", one.textContent);
    }
    this.side.scrollTop = 0;
    this.dispatchEvent(new CustomEvent("change"));
  }
}
