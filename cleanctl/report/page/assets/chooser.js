// A text field that finds a class by what is typed: names that start so first, then names that hold it.

import { make } from "./elements.js";

const MOST = 50;

export class Chooser {
  // pick(name) or cancel() is called once for each time that it opens.
  constructor(names, { pick, cancel }) {
    Object.assign(this, { names, pick, cancel, found: [], active: 0 });
    this.lower = names.map((name) => name.toLowerCase());
    this.list = make("ul", { id: "class-list", role: "listbox", "aria-label": "Classes" });
    this.field = make("input", {
      type: "text",
      role: "combobox",
      autocomplete: "off",
      spellcheck: false,
      "aria-label": "The right class",
      "aria-controls": "class-list",
      "aria-expanded": "true",
      "aria-autocomplete": "list",
      placeholder: "Type a class, Enter takes it",
      oninput: () => this.search(),
      onkeydown: (event) => this.key(event),
    });
    this.list.addEventListener("click", (event) => this.clicked(event));
    this.element = make("div", { class: "chooser", hidden: true }, this.field, this.list);
  }

  open(first) {
    Object.assign(this, { first });
    this.field.value = "";
    this.element.hidden = false;
    this.search();
    this.field.focus();
  }

  close() {
    this.element.hidden = true;
  }

  search() {
    const typed = this.field.value.trim().toLowerCase();
    const starting = [];
    const holding = [];
    this.lower.forEach((name, number) => {
      const at = name.indexOf(typed);
      if (at === 0) starting.push(number);
      else if (at > 0) holding.push(number);
    });
    const found = [...starting, ...holding].map((number) => this.names[number]);
    const lead = typed === "" && this.first ? [this.first, ...found.filter((name) => name !== this.first)] : found;
    this.found = lead.slice(0, MOST);
    this.more = lead.length - this.found.length;
    this.active = 0;
    this.draw();
  }

  draw() {
    const options = this.found.map((name, place) => {
      const option = make("li", { role: "option", id: `class-${place}` }, name);
      option.setAttribute("aria-selected", String(place === this.active));
      option.dataset.place = place;
      return option;
    });
    const none = this.found.length === 0 && make("li", { class: "muted" }, "No class has such a name.");
    const more = this.more > 0 && make("li", { class: "muted" }, `and ${this.more} more`);
    this.list.replaceChildren(...[...options, none, more].filter(Boolean));
    if (options.length) this.field.setAttribute("aria-activedescendant", `class-${this.active}`);
    else this.field.removeAttribute("aria-activedescendant");
    options[this.active]?.scrollIntoView({ block: "nearest" });
  }

  key(event) {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step && this.found.length) {
      this.active = (this.active + step + this.found.length) % this.found.length;
      this.draw();
    } else if (event.key === "Enter" && this.found.length) {
      this.take(this.active);
    } else if (event.key === "Escape") {
      this.close();
      this.cancel();
    } else return;
    event.preventDefault();
    event.stopPropagation();
  }

  clicked(event) {
    const place = event.target.closest("[data-place]")?.dataset.place;
    if (place !== undefined) this.take(Number(place));
  }

  take(place) {
    this.close();
    this.pick(this.found[place]);
  }
}
