// The form above the table, the sort buttons over its columns, and the line that says what is shown.

import { byId, make } from "./elements.js";
import { DIFFER, OPEN, OTHER } from "./filters.js";
import { counted, number, plural } from "./model.js";

export class Controls {
  // changed(view) is called at every change that a person makes.
  constructor(page, changed) {
    Object.assign(this, { page, changed, form: byId("filters"), group: "", descending: false });
    this.fields = this.form.elements;
    this.fill();
    this.form.addEventListener("input", () => this.tell());
    this.form.addEventListener("submit", (event) => event.preventDefault());
    this.form.addEventListener("reset", (event) => {
      event.preventDefault();
      this.show({ ...OPEN });
      this.tell();
    });
    byId("direction").addEventListener("click", () => this.turn());
    byId("group").addEventListener("click", () => this.setGroup(""));
  }

  fill() {
    const { page } = this;
    const { column } = page;
    const names = page.classes.map((name) => [name, name]);
    this.choices("class", [["", "any"], ...names]);
    this.choices("suggested", [["", "any"], [OTHER, "another than given"], ...names], column.suggested);
    const failed = column.failed?.includes(1) ? [["failed", "could not be read"]] : [];
    this.choices("kept", [["", "any"], ["yes", "kept"], ["no", "dropped"], ...failed], column.keep);
    const rules = page.rules.flatMap(({ name }) => [
      [name, `${name} keeps`],
      [`~${name}`, `${name} drops`],
    ]);
    const differ = page.rules.length > 1 ? [[DIFFER, "rules disagree"]] : [];
    this.choices("rule", [["", "any"], ...differ, ...rules], page.rules.length);
    this.choices("verdict", [
      ["", "any"],
      ["none", "none"],
      ["keep", "keep"],
      ["drop", "drop"],
      ["relabel", "relabel"],
      ["skip", "skip"],
    ]);
    const scores = page.scores.map(({ name, title }) => [name, title]);
    for (const name of ["score", "min", "max"]) this.choices(name, scores, scores.length);
    const fixed = [
      ["", "page order"],
      ["key", "path"],
      ["class", "given label"],
    ];
    if (column.suggested) fixed.push(["suggested", "suggested label"]);
    if (column.keep) fixed.push(["kept", "kept"]);
    this.choices("sort", [...fixed, ...scores]);
  }

  // A field without choices on this page is not shown.
  choices(name, options, wanted = true) {
    const field = this.fields[name];
    if (!wanted) field.closest("label").hidden = true;
    else if (field.tagName === "SELECT")
      field.append(...options.map(([value, text]) => make("option", { value }, text)));
  }

  // The view that the form says; the score is left out where it narrows nothing and is the first.
  view() {
    const view = { ...OPEN };
    for (const name of ["q", "class", "suggested", "kept", "rule", "verdict", "min", "max"])
      view[name] = this.fields[name].value;
    if (this.fields.score.value !== this.page.scores[0]?.name) view.score = this.fields.score.value;
    const sort = this.fields.sort.value;
    view.sort = sort && this.descending ? `-${sort}` : sort;
    view.group = this.group;
    return view;
  }

  show(view) {
    for (const name of ["q", "class", "suggested", "kept", "rule", "verdict", "min", "max"])
      this.fields[name].value = view[name];
    this.fields.score.value = view.score || (this.page.scores[0]?.name ?? "");
    this.descending = view.sort.startsWith("-");
    this.fields.sort.value = this.descending ? view.sort.slice(1) : view.sort;
    this.group = view.group;
    this.dress();
  }

  tell() {
    this.dress();
    this.changed(this.view());
  }

  turn() {
    this.descending = !this.descending;
    this.tell();
  }

  // A click on a column's head: by it, rising; again: falling; again: the page's order.
  sortBy(name) {
    if (this.fields.sort.value !== name) Object.assign(this, { descending: false }).fields.sort.value = name;
    else if (!this.descending) this.descending = true;
    else Object.assign(this, { descending: false }).fields.sort.value = "";
    this.tell();
  }

  setGroup(group) {
    this.group = String(group);
    this.tell();
  }

  get scoreShown() {
    return this.page.scores.find((score) => score.name === this.fields.score.value);
  }

  dress() {
    const direction = byId("direction");
    direction.setAttribute("aria-pressed", String(this.descending));
    direction.disabled = this.fields.sort.value === "";
    const chip = byId("group");
    chip.hidden = this.group === "";
    chip.textContent = `Conflict group ${this.group} ×`;
    chip.setAttribute("aria-label", `Conflict group ${this.group}: show all images again`);
    const score = this.scoreShown;
    if (score) {
      score.range ??= rangeOf(score.values);
      this.fields.min.placeholder = number(score.range[0]);
      this.fields.max.placeholder = number(score.range[1]);
    }
    this.drawHead();
  }

  drawHead() {
    const score = this.scoreShown;
    const { column } = this.page;
    const parts = [
      ["key", "Path", "key"],
      ["class", "Given", "given"],
      column.suggested && ["suggested", "Suggested", "suggested"],
      score && [score.name, score.title, "score n"],
      this.page.rules.length > 0 && [null, "Rules", "marks"],
      column.keep && ["kept", "Kept", "standing"],
      [null, "Verdict", "verdict"],
    ];
    const focused = document.activeElement?.dataset?.sort;
    byId("head").replaceChildren(
      make("span", { class: "thumb" }),
      ...parts
        .filter(Boolean)
        .map(([name, title, style]) =>
          name ? this.headButton(name, title, style) : make("span", { class: style }, title),
        ),
    );
    if (focused)
      byId("head")
        .querySelector(`[data-sort="${CSS.escape(focused)}"]`)
        ?.focus();
  }

  headButton(name, title, style) {
    const on = this.fields.sort.value === name;
    const arrow = on ? (this.descending ? " ▼" : " ▲") : "";
    const told = on ? `, sorted ${this.descending ? "descending" : "ascending"}` : "";
    const button = make(
      "button",
      { type: "button", class: style, title, "aria-label": `${title}${told}`, onclick: () => this.sortBy(name) },
      title + arrow,
    );
    button.dataset.sort = name;
    return button;
  }

  tellCount(count, kept) {
    const { page } = this;
    const share = page.column.keep && count ? `, ${counted(kept)} kept (${((100 * kept) / count).toFixed(1)} %)` : "";
    const sample = page.rows_in_split > page.count ? `; a sample of ${counted(page.rows_in_split)}` : "";
    const all =
      count === page.count
        ? plural(count, "image", "images")
        : `${counted(count)} of ${plural(page.count, "image", "images")}`;
    byId("count").textContent = `${all}${share}${sample}`;
    return `${all}${share}`;
  }
}

function rangeOf(values) {
  let low = Infinity;
  let high = -Infinity;
  for (let at = 0; at < values.length; at++) {
    if (values[at] < low) low = values[at];
    if (values[at] > high) high = values[at];
  }
  return low <= high ? [low, high] : [NaN, NaN];
}
