// Review: one image after another, in the order in which a look brings most, decided by single keys.

import { Chooser } from "./chooser.js";
import { evidence, labels, largeImage } from "./detail.js";
import { announce, byId, make } from "./elements.js";
import { served } from "./images.js";
import { className, counted, given, plural } from "./model.js";
import { verdictInWords } from "./words.js";

export class Review {
  // closed(position) is called with the row that was looked at last.
  constructor(page, orders, source, verdicts, closed) {
    Object.assign(this, { page, orders, source, verdicts, closed, queue: [], place: 0, history: [], said: "" });
    this.dialog = byId("review");
    this.chooser = new Chooser(page.classes, {
      pick: (name) => this.decide("relabel", name),
      cancel: () => this.actions.querySelector("button")?.focus(),
    });
    this.build();
    verdicts.listeners.push(() => this.dialog.open && this.tellSaving());
  }

  build() {
    this.title = make("h2", { id: "review-title" }, "Review");
    this.progress = make("progress", { "aria-label": "Share of this view that is decided" });
    this.count = make("p", { class: "count" });
    this.body = make("div", { class: "review-body" });
    this.actions = make("div", { class: "decisions", role: "group", "aria-label": "Verdict" });
    this.saying = make("p", { class: "said", role: "status" });
    this.alert = make("div", { class: "alert", role: "alert", hidden: true });
    const close = make("button", { type: "button", class: "close", onclick: () => this.dialog.close() }, "Close");
    const head = make("header", {}, this.title, this.count, this.progress, close);
    const deciding = make("div", { class: "deciding" }, this.chooser.element, this.actions);
    this.dialog.append(head, this.alert, this.body, deciding, this.saying, this.files());
    this.dialog.addEventListener("keydown", (event) => this.key(event));
    this.dialog.addEventListener("close", () => this.closed(this.queue[Math.min(this.place, this.queue.length - 1)]));
  }

  files() {
    const name = make("input", { type: "text", value: this.verdicts.by, autocomplete: "name", maxLength: 100 });
    name.addEventListener("change", () => (this.verdicts.by = name.value.trim()));
    this.name = name;
    const file = make("input", {
      type: "file",
      accept: ".json,application/json",
      class: "hidden",
      tabIndex: -1,
      "aria-label": "Verdict file",
    });
    file.addEventListener("change", async () => {
      if (!file.files.length) return;
      this.say(this.verdicts.load(await file.files[0].text()));
      file.value = "";
      this.show();
    });
    this.saveButton = make("button", { type: "button", onclick: () => this.save() }, "Save verdicts");
    const load = make("button", { type: "button", onclick: () => file.click() }, "Load a file");
    return make("footer", {}, make("label", {}, "Your name ", name), this.saveButton, load, file);
  }

  // Rows of a view: those without a verdict, by falling gain; `first` leads where it is given.
  open(rows, first = null) {
    const gain = this.page.column.gain ? ["gain", true] : ["p_label", false];
    const inView = new Uint8Array(this.page.count);
    for (const position of rows) inView[position] = 1;
    if (first !== null) inView[first] = 0;
    const order = this.orders.of(...gain);
    const queue = Array.from(order).filter((position) => inView[position] && !this.verdicts.get(position));
    this.queue = first === null ? queue : [first, ...queue];
    Object.assign(this, { place: 0, history: [] });
    this.say("");
    this.dialog.showModal();
    this.show();
    this.focusFirst();
  }

  get position() {
    return this.place < this.queue.length ? this.queue[this.place] : null;
  }

  show() {
    const { page, queue, position, verdicts } = this;
    const decided = queue.filter((one) => verdicts.get(one)).length;
    const all = plural(verdicts.own.length, "verdict", "verdicts");
    this.count.textContent = `${counted(decided)} of ${counted(queue.length)} decided · ${all} in all`;
    Object.assign(this.progress, { max: Math.max(queue.length, 1), value: decided });
    this.tellSaving();
    this.chooser.close();
    if (position === null) {
      const text = queue.length
        ? "Every image of this view has been shown."
        : "Every image of this view has a verdict.";
      this.body.replaceChildren(make("p", { class: "done" }, text));
    } else {
      const verdict = verdicts.get(position);
      this.body.replaceChildren(
        make("div", { class: "picture" }, largeImage(page, this.source, position)),
        make(
          "div",
          { class: "about" },
          make("p", { class: "key" }, page.column.key[position]),
          labels(page, position),
          evidence(page, position, { blind: true }),
          verdict ? make("p", { class: "verdict" }, verdictInWords(verdict)) : "",
        ),
      );
      const next = this.source.large(queue[this.place + 1] ?? position);
      if (next) new Image().src = next;
    }
    this.drawActions(position);
  }

  drawActions(position) {
    const { page } = this;
    const likely = position === null ? "" : className(page, "suggested", position);
    const offered = position !== null && likely && likely !== given(page, position);
    const parts = [
      ["K", `Keep${position === null ? "" : ` ${given(page, position)}`}`, "keep", position !== null],
      ["D", "Drop", "drop", position !== null],
      ["A", offered ? `Relabel as ${likely}` : "Relabel as suggested", "accept", offered],
      ["R", "Relabel…", "relabel", position !== null],
      ["S", "Skip", "skip", position !== null],
      ["U", "Undo", "undo", this.history.length > 0],
    ];
    const focused = this.actions.contains(document.activeElement) ? document.activeElement.dataset.does : null;
    this.actions.replaceChildren(
      ...parts.map(([letter, text, does, enabled]) => {
        const key = make("kbd", { "aria-hidden": "true" }, letter);
        const button = make(
          "button",
          { type: "button", disabled: !enabled, "aria-keyshortcuts": letter, onclick: () => this.does(does) },
          key,
          text,
        );
        button.dataset.does = does;
        return button;
      }),
    );
    if (focused) this.focusFirst(focused);
  }

  // The focus stays on what was used, so that the same key can be pressed again.
  focusFirst(does = "keep") {
    const button = this.actions.querySelector(`[data-does="${does}"]:not(:disabled)`);
    (button ?? this.actions.querySelector("button:not(:disabled)") ?? this.dialog.querySelector(".close")).focus();
  }

  key(event) {
    if (event.altKey || event.ctrlKey || event.metaKey || event.target.tagName === "INPUT") return;
    const does = {
      k: "keep",
      d: "drop",
      a: "accept",
      r: "relabel",
      s: "skip",
      u: "undo",
      ArrowRight: "next",
      ArrowLeft: "back",
    };
    const name = does[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!name) return;
    event.preventDefault();
    this.does(name);
  }

  does(name) {
    if (name === "undo") return this.undo();
    if (name === "back" || name === "next") return this.step(name === "next" ? 1 : -1);
    if (this.position === null) return;
    const likely = className(this.page, "suggested", this.position);
    if (name === "relabel") this.chooser.open(likely);
    else if (name !== "accept") this.decide(name);
    else if (likely && likely !== given(this.page, this.position)) this.decide("relabel", likely);
  }

  // Relabelling as the given class is to keep it.
  decide(verdict, label = null) {
    const position = this.position;
    if (verdict === "relabel" && label === given(this.page, position)) [verdict, label] = ["keep", null];
    this.history.push({ position, place: this.place, before: this.verdicts.put(position, verdict, label) });
    const key = this.page.column.key[position];
    this.say(
      `${{ keep: "Kept", drop: "Dropped", skip: "Skipped", relabel: `Relabelled as ${label}:` }[verdict]} ${key}`,
    );
    this.step(1);
    if (!this.dialog.contains(document.activeElement) || document.activeElement === this.chooser.field)
      this.focusFirst();
  }

  undo() {
    const last = this.history.pop();
    if (!last) return;
    this.verdicts.undo(last.position, last.before);
    this.place = last.place;
    this.say(`Undone: ${this.page.column.key[last.position]}`);
    this.show();
    if (!this.dialog.contains(document.activeElement)) this.focusFirst();
  }

  step(by) {
    this.place = Math.min(Math.max(this.place + by, 0), this.queue.length);
    this.show();
  }

  say(text) {
    this.saying.textContent = text;
  }

  save() {
    const name = this.verdicts.save();
    this.say(`Saved ${plural(this.verdicts.own.length, "verdict", "verdicts")}. Next: cleanctl review apply ${name}`);
  }

  tellSaving() {
    const text = trouble(this.verdicts);
    this.alert.hidden = text === "";
    if (this.alert.dataset.text !== text) {
      this.alert.dataset.text = text;
      const retry = served && make("button", { type: "button", onclick: () => this.verdicts.send() }, "Try again");
      this.alert.replaceChildren(make("span", {}, text), ...(retry ? [retry] : []));
    }
    this.name.placeholder = this.verdicts.usualBy;
    this.saveButton.disabled = this.verdicts.own.length === 0;
  }
}

// What keeps verdicts from being safe, or "".
export function trouble(verdicts) {
  if (served && verdicts.failure) {
    const many = verdicts.waiting;
    const lost = many
      ? `${plural(many, "verdict is", "verdicts are")} not saved at the server, only in this browser`
      : "The server does not answer";
    return `${lost}: ${verdicts.failure}. Try again, or save the verdicts as a file.`;
  }
  if (!verdicts.storing)
    return "This browser stores nothing: verdicts are lost with this tab. Save them as a file before you close it.";
  return "";
}
