// A list of any length of which only the rows in sight are elements: real buttons, one of them in the tab order.
//
// Browsers lay out no element higher than some 17 million pixels: longer lists scroll in proportion.

import { make } from "./elements.js";

const HIGHEST = 10000000;
const AROUND = 6;

export class VirtualList {
  // fill(button, position) writes a row; open(position) follows a click or Enter, walk(position) a move of the focus.
  constructor(root, { label, fill, open, walk }) {
    Object.assign(this, { root, fill, open, walk, rows: new Uint32Array(0), active: 0, shown: new Map() });
    this.sheet = make("div", { class: "sheet", role: "list", "aria-label": label });
    root.append(this.sheet);
    root.addEventListener("scroll", () => this.draw());
    root.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    this.sheet.addEventListener("keydown", (event) => this.key(event));
    this.sheet.addEventListener("click", (event) => this.click(event));
    this.sheet.addEventListener("focusin", (event) => this.focused(event));
    new ResizeObserver(() => this.measure()).observe(root);
  }

  // Shows other rows, from the top; the row that was active stays so where it is among them.
  set(rows, { keep = null } = {}) {
    const place = keep === null ? -1 : rows.indexOf(keep);
    Object.assign(this, { rows, active: Math.max(place, 0) });
    this.measure();
    if (place >= 0) this.reveal(place);
    else this.root.scrollTop = 0;
    this.redraw();
  }

  measure() {
    this.height = parseFloat(getComputedStyle(this.root).getPropertyValue("--row")) || 44;
    const full = this.rows.length * this.height;
    const view = this.root.clientHeight;
    const drawn = Math.min(full, HIGHEST);
    this.scale = full > drawn ? (full - view) / (drawn - view) : 1;
    this.sheet.style.height = `${drawn}px`;
    this.draw();
  }

  redraw() {
    const inside = this.sheet.contains(document.activeElement);
    for (const item of this.shown.values()) item.remove();
    this.shown.clear();
    this.draw();
    if (inside) this.focus();
  }

  refresh(position) {
    for (const [place, item] of this.shown) if (this.rows[place] === position) this.fill(item.firstChild, position);
  }

  draw() {
    const { root, height, rows } = this;
    const top = root.scrollTop * this.scale;
    const first = Math.max(0, Math.floor(top / height) - AROUND);
    const last = Math.min(rows.length, Math.ceil((top + root.clientHeight) / height) + AROUND);
    for (const [place, item] of this.shown) {
      if ((place < first || place >= last) && place !== this.active) {
        item.remove();
        this.shown.delete(place);
      }
    }
    const offset = root.scrollTop - top;
    for (let place = first; place < last; place++) this.put(place, place * height + offset);
    // The active row stays an element wherever the list is scrolled to, so that Tab finds it.
    if (rows.length && (this.active < first || this.active >= last)) {
      this.put(this.active, (this.active < first ? first - 1 : last) * height + offset);
    }
  }

  put(place, y) {
    let item = this.shown.get(place);
    if (!item) {
      item = this.item(place);
      const after = [...this.shown.keys()].filter((other) => other > place).sort((a, b) => a - b)[0];
      this.sheet.insertBefore(item, after === undefined ? null : this.shown.get(after));
      this.shown.set(place, item);
    }
    item.style.transform = `translateY(${Math.max(0, y)}px)`;
    const button = item.firstChild;
    button.tabIndex = place === this.active ? 0 : -1;
    button.toggleAttribute("data-active", place === this.active);
  }

  item(place) {
    const button = make("button", { type: "button", class: "row" });
    button.dataset.place = place;
    this.fill(button, this.rows[place]);
    const where = { role: "listitem", "aria-setsize": this.rows.length, "aria-posinset": place + 1 };
    return make("div", where, button);
  }

  // Scrolls as little as brings a place into sight.
  reveal(place) {
    const { root, height, scale } = this;
    const top = root.scrollTop * scale;
    const low = (place + 1) * height - root.clientHeight;
    if (place * height < top) root.scrollTop = (place * height) / scale;
    else if (low > top) root.scrollTop = Math.ceil(low / scale);
    this.draw();
  }

  go(place, { focus = true } = {}) {
    if (!this.rows.length) return;
    this.active = Math.min(Math.max(place, 0), this.rows.length - 1);
    this.reveal(this.active);
    this.draw();
    if (focus) this.focus();
    this.walk(this.rows[this.active]);
  }

  focus() {
    this.shown.get(this.active)?.firstChild.focus({ preventScroll: true });
  }

  focused(event) {
    const place = Number(event.target.closest("button")?.dataset.place);
    if (place === this.active) return this.reveal(place);
    this.active = place;
    this.draw();
  }

  click(event) {
    const button = event.target.closest("button");
    if (!button) return;
    this.active = Number(button.dataset.place);
    this.draw();
    this.open(this.rows[this.active]);
  }

  key(event) {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const page = Math.max(1, Math.floor(this.root.clientHeight / this.height) - 1);
    const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity };
    if (!(event.key in steps)) return;
    event.preventDefault();
    this.go(this.active + steps[event.key]);
  }

  // In a list that scrolls in proportion, a turn of the wheel moves as many rows as in any other.
  wheel(event) {
    if (this.scale === 1 || event.ctrlKey || event.deltaY === 0) return;
    const unit = event.deltaMode === WheelEvent.DOM_DELTA_LINE ? this.height : 1;
    event.preventDefault();
    this.root.scrollTop += (event.deltaY * unit) / this.scale;
  }
}
