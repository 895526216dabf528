// A view: which rows, in which order. Its fields are the fragment's (docs/report-page.md); "" leaves a field open.

export const FIELDS = ["q", "class", "suggested", "kept", "rule", "score", "min", "max", "verdict", "group", "sort"];
export const OPEN = Object.freeze(Object.fromEntries(FIELDS.map((field) => [field, ""])));
export const OTHER = "~given"; // suggested: another class than the given one
export const DIFFER = "~"; // rule: some keep it and some drop it

export class Filter {
  constructor(page, orders, verdictOf) {
    Object.assign(this, { page, orders, verdictOf });
    this.passing = new Uint8Array(page.count);
    this.classOf = new Map(page.classes.map((name, number) => [name, number]));
  }

  // Positions that a view shows, in its order, and how many of them are kept.
  rows(view) {
    const { page, passing } = this;
    passing.fill(1);
    this.byClasses(view);
    this.byStanding(view);
    this.byRule(view);
    this.byScore(view);
    if (view.group !== "") this.equal(page.column.group, Number(view.group));
    if (view.verdict) this.byVerdict(view.verdict);
    if (view.q) this.byText(view.q);
    const descending = view.sort.startsWith("-");
    const order = this.orders.of(descending ? view.sort.slice(1) : view.sort, descending);
    const rows = new Uint32Array(page.count);
    const keep = page.column.keep;
    let count = 0;
    let kept = 0;
    for (let place = 0; place < order.length; place++) {
      const position = order[place];
      if (!passing[position]) continue;
      rows[count++] = position;
      if (keep) kept += keep[position];
    }
    return { rows: rows.subarray(0, count), kept };
  }

  equal(values, wanted) {
    const { passing } = this;
    if (!values || Number.isNaN(wanted)) return void passing.fill(0);
    for (let at = 0; at < passing.length; at++) if (values[at] !== wanted) passing[at] = 0;
  }

  // A class that the page does not know shows no rows, rather than all.
  byClasses(view) {
    const { label, suggested } = this.page.column;
    const { passing } = this;
    if (view.class) this.equal(label, this.classOf.get(view.class) ?? NaN);
    if (view.suggested === OTHER) {
      for (let at = 0; at < passing.length; at++) {
        if (!suggested || suggested[at] < 0 || suggested[at] === label[at]) passing[at] = 0;
      }
    } else if (view.suggested) this.equal(suggested, this.classOf.get(view.suggested) ?? NaN);
  }

  byStanding(view) {
    if (!view.kept) return;
    const { keep, failed } = this.page.column;
    if (view.kept === "failed") return this.equal(failed, 1);
    if (failed) this.equal(failed, 0);
    this.equal(keep, view.kept === "yes" ? 1 : view.kept === "no" ? 0 : NaN);
  }

  byRule(view) {
    if (!view.rule) return;
    if (view.rule === DIFFER) return this.byDisagreement();
    const { rules } = this.page; // a name may begin with "~" itself
    const keeping = rules.find((rule) => rule.name === view.rule);
    const dropping = rules.find((rule) => `~${rule.name}` === view.rule);
    this.equal((keeping ?? dropping)?.keep, keeping ? 1 : 0);
  }

  byDisagreement() {
    const { passing, page } = this;
    for (let at = 0; at < passing.length; at++) {
      let keeping = 0;
      for (const rule of page.rules) keeping += rule.keep[at];
      if (keeping === 0 || keeping === page.rules.length || page.column.failed?.[at]) passing[at] = 0;
    }
  }

  // Bounds are included, in the precision that the columns have; a row without the score is in no range.
  byScore(view) {
    if (view.min === "" && view.max === "") return;
    const name = view.score || this.page.scores[0]?.name;
    const values = this.page.scores.find((one) => one.name === name)?.values;
    if (!values) return void this.passing.fill(0);
    const low = view.min === "" ? -Infinity : Math.fround(Number(view.min));
    const high = view.max === "" ? Infinity : Math.fround(Number(view.max));
    const { passing } = this;
    for (let at = 0; at < passing.length; at++) if (!(values[at] >= low && values[at] <= high)) passing[at] = 0;
  }

  byVerdict(wanted) {
    const { passing } = this;
    for (let at = 0; at < passing.length; at++) {
      if (passing[at] && (this.verdictOf(at)?.verdict ?? "none") !== wanted) passing[at] = 0;
    }
  }

  // What the search for text needs, made once: before the first keystroke, where there is time.
  prepare() {
    this.hay ??= haystack(this.page.column.key);
    return this.hay;
  }

  // One search through all keys in one text is several times as fast as a search in each.
  byText(wanted) {
    const { passing } = this;
    const { text, ends } = this.prepare();
    const needle = wanted.toLowerCase();
    const found = new Uint8Array(passing.length);
    let row = 0;
    for (let at = text.indexOf(needle); at >= 0 && row < ends.length; at = text.indexOf(needle, ends[row++] + 1)) {
      row = rowAt(ends, at, row);
      found[row] = 1;
    }
    for (let at = 0; at < passing.length; at++) passing[at] &= found[at];
  }
}

// All keys in lower case, a line each; ends[row] is where its line ends. A line break inside a key is no match for one.
function haystack(keys) {
  const lower = keys.map((key) => key.replaceAll("\n", " ").toLowerCase());
  const ends = new Float64Array(lower.length);
  let end = -1;
  for (let row = 0; row < lower.length; row++) ends[row] = end += lower[row].length + 1;
  return { text: lower.join("\n"), ends };
}

// The first row from `first` on that ends after a place. Neighbours are tried first: common words are in most rows.
function rowAt(ends, place, first) {
  for (let row = first; row < first + 8 && row < ends.length; row++) if (ends[row] > place) return row;
  let low = first;
  let high = ends.length - 1;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (ends[middle] > place) high = middle;
    else low = middle + 1;
  }
  return low;
}
