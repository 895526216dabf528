// Opens the page: reads its columns, then joins form, list, details, review and address.

import { fromFragment, toFragment } from "./address.js";
import { Controls } from "./controls.js";
import { csvOf } from "./csv.js";
import { showDetail } from "./detail.js";
import { announce, byId, make, saveFile, settled } from "./elements.js";
import { Filter, OPEN } from "./filters.js";
import { images, wireSections } from "./images.js";
import { VirtualList } from "./list.js";
import { className, given, number, positionOf, readPage, standing, storeRow } from "./model.js";
import { Review } from "./review.js";
import { Orders } from "./sorting.js";
import { Verdicts } from "./verdicts.js";

class Table {
  constructor(page) {
    this.page = page;
    this.source = images(page);
    this.orders = new Orders(page);
    this.verdicts = new Verdicts(page);
    this.filter = new Filter(page, this.orders, (position) => this.verdicts.get(position));
    this.controls = new Controls(page, (view) => this.apply(view));
    this.list = new VirtualList(byId("list"), {
      label: "Images",
      fill: (button, position) => this.fillRow(button, position),
      open: (position) => this.open(position),
      walk: (position) => this.looked !== null && this.sideBySide() && this.show(position),
    });
    this.review = new Review(page, this.orders, this.source, this.verdicts, (position) => this.reviewed(position));
    Object.assign(this, { view: { ...OPEN }, rows: new Uint32Array(0), looked: null });
    this.writeAddress = settled(250, () => this.address());
    this.announceCount = settled(600, () => announce(this.told));
    this.verdicts.listeners.push((position) => this.verdictChanged(position));
    byId("workplace").style.setProperty("--marks", `${Math.min(Math.max(42, 15 * page.rules.length), 150)}px`);
    this.wire();
  }

  wire() {
    wireSections(this.page, this.source, (position) => this.look(position));
    byId("to-top").addEventListener("click", () => this.list.go(0));
    byId("to-end").addEventListener("click", () => this.list.go(this.rows.length - 1));
    byId("export").addEventListener("click", () => this.saveCsv());
    byId("copy").addEventListener("click", () => this.copyLink());
    byId("start").addEventListener("click", () => this.review.open(this.rows));
    byId("look").addEventListener("close", () => byId("look").replaceChildren());
    byId("look").addEventListener("click", (event) => event.target === byId("look") && byId("look").close());
    addEventListener("hashchange", () => this.follow());
  }

  apply(view) {
    this.view = view;
    const { rows, kept } = this.filter.rows(view);
    this.rows = rows;
    this.list.set(rows, { keep: this.looked });
    this.told = this.controls.tellCount(rows.length, kept);
    byId("list").classList.toggle("empty", rows.length === 0);
    for (const id of ["to-top", "to-end", "export", "start"]) byId(id).disabled = rows.length === 0;
    this.writeAddress();
    this.announceCount();
  }

  // The view that the address leads to; a link elsewhere leaves the table as it is.
  follow() {
    const found = fromFragment(location.hash);
    if (!found) return;
    if (this.written === location.hash) return;
    this.controls.show(found.view);
    this.looked = null;
    const position = found.row === null ? -1 : positionOf(this.page, found.row);
    if (position >= 0) this.looked = position;
    this.apply(found.view);
    byId("table").scrollIntoView();
    if (position >= 0) this.sideBySide() ? this.show(position) : this.look(position);
    else this.clearDetail();
    if (found.review) this.review.open(this.rows);
  }

  address() {
    const row = this.looked === null ? null : storeRow(this.page, this.looked);
    const fragment = toFragment(this.view, { row });
    const elsewhere = !location.hash.startsWith("#table");
    if (fragment === location.hash || (elsewhere && fragment === "#table")) return;
    this.written = fragment;
    history.replaceState(null, "", fragment);
  }

  async copyLink() {
    this.address();
    let said = "Link copied";
    try {
      await navigator.clipboard.writeText(location.href);
    } catch (error) {
      said = "Copy the address bar"; // the browser refuses its clipboard to this page
    }
    const button = byId("copy");
    button.textContent = said;
    announce(said);
    setTimeout(() => (button.textContent = "Copy link"), 2500);
  }

  saveCsv() {
    const name = `${this.page.split}-${this.rows.length}-images.csv`.replaceAll(/[^\w.-]/g, "_");
    saveFile(
      name,
      "text/csv;charset=utf-8",
      csvOf(this.page, this.rows, (position) => this.verdicts.get(position)),
    );
    announce(`Saved ${name}`);
  }

  // --- one row

  fillRow(button, position) {
    const { page } = this;
    const label = given(page, position);
    const likely = className(page, "suggested", position);
    const score = this.controls.scoreShown;
    const stands = standing(page, position);
    const verdict = this.verdicts.get(position);
    const url = this.source.small(position);
    const picture = url ? make("img", { src: url, alt: "", loading: "lazy", decoding: "async" }) : null;
    const said = verdict ? (verdict.verdict === "relabel" ? `→ ${verdict.label}` : verdict.verdict) : "";
    button.replaceChildren(
      make("span", { class: "thumb" }, picture),
      make("span", { class: "key" }, make("bdi", {}, page.column.key[position])),
      make("span", { class: "given" }, label),
      ...(page.column.suggested
        ? [make("span", { class: `suggested${likely === label ? " same" : ""}` }, likely)]
        : []),
      ...(score ? [make("span", { class: "score n" }, number(score.values[position]))] : []),
      ...(page.rules.length ? [this.marks(position)] : []),
      ...(page.column.keep ? [make("span", { class: `standing ${stands}` }, stands)] : []),
      make("span", { class: "verdict" }, said),
    );
    button.toggleAttribute("data-looked", position === this.looked);
  }

  marks(position) {
    const { rules } = this.page;
    const failed = this.page.column.failed?.[position];
    const marks = rules.map((rule) =>
      make("span", { class: rule.keep[position] ? "keeps" : "drops" }, failed ? "–" : rule.keep[position] ? "●" : "○"),
    );
    const said = rules.map((rule) => `${rule.name} ${rule.keep[position] ? "keeps" : "drops"}`).join(", ");
    return make("span", { class: "marks", title: said, role: "img", "aria-label": said }, ...marks);
  }

  sideBySide() {
    return getComputedStyle(byId("detail")).display !== "none";
  }

  open(position) {
    this.sideBySide() ? this.show(position) : this.look(position);
  }

  // In the pane beside the list.
  show(position) {
    const before = this.looked;
    this.looked = position;
    if (before !== null) this.list.refresh(before);
    this.list.refresh(position);
    this.fillDetail(byId("detail"), position, () => this.clearDetail(true));
    this.writeAddress();
  }

  clearDetail(focus = false) {
    const before = this.looked;
    this.looked = null;
    if (before !== null) this.list.refresh(before);
    byId("detail").replaceChildren(
      make("p", { class: "muted hint" }, "Choose an image: here it is large, with the reasons."),
    );
    if (focus) this.list.focus();
    this.writeAddress();
  }

  // In a window of its own: from galleries, and where there is no room beside the list.
  look(position) {
    const dialog = byId("look");
    this.fillDetail(dialog, position, () => dialog.close());
    if (!dialog.open) dialog.showModal();
    dialog.querySelector(".close").focus();
  }

  fillDetail(root, position, close) {
    showDetail(root, this.page, this.source, position, this.verdicts.get(position), {
      close,
      review: (at) => {
        byId("look").close();
        this.review.open(this.rows, at);
      },
      group: (group) => {
        byId("look").close();
        this.controls.setGroup(group);
        byId("table").scrollIntoView();
      },
    });
  }

  verdictChanged(position) {
    if (position === null) this.list.redraw();
    else this.list.refresh(position);
  }

  // After review the filter by verdict holds again, and the details tell the verdict.
  reviewed(position) {
    this.apply(this.view);
    if (this.looked !== null) this.show(this.looked);
    const place = position === undefined ? -1 : this.rows.indexOf(position);
    if (place >= 0) this.list.go(place, { focus: false });
    byId("start").focus();
  }
}

async function openPage() {
  const table = new Table(await readPage());
  byId("opening").remove();
  byId("workplace").hidden = false;
  const narrow = matchMedia("(max-width: 640px)"); // as in table.css: there the filters fold away
  byId("more").open = !narrow.matches;
  narrow.addEventListener("change", () => (byId("more").open = !narrow.matches));
  table.controls.show(table.view);
  table.clearDetail();
  table.apply(table.view);
  table.follow();
  await table.verdicts.open();
  document.documentElement.dataset.ready = "yes";
  setTimeout(() => table.filter.prepare(), 100);
}

openPage().catch((error) => {
  byId("opening").textContent =
    `The table could not be opened: ${error.message}. A browser of 2023 or later is needed.`;
  throw error;
});
