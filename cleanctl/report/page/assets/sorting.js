// Orders of all rows: by numbers in linear time, by text through ranks. Ties keep the page's order; no value is last.

const NONE = 0xffffffff;

// Positions by rising keys; keys are unsigned 32-bit integers. Two passes over 16 bits each.
function byKeys(keys) {
  const count = keys.length;
  let from = new Uint32Array(count);
  let to = new Uint32Array(count);
  for (let position = 0; position < count; position++) from[position] = position;
  for (const shift of [0, 16]) {
    const starts = new Uint32Array(65537);
    for (let at = 0; at < count; at++) starts[((keys[at] >>> shift) & 0xffff) + 1]++;
    for (let digit = 0; digit < 65536; digit++) starts[digit + 1] += starts[digit];
    for (let at = 0; at < count; at++) {
      const position = from[at];
      to[starts[(keys[position] >>> shift) & 0xffff]++] = position;
    }
    [from, to] = [to, from];
  }
  return from;
}

// The bits of a float, so that larger floats are larger integers; NaN is none.
function floatKeys(values) {
  const keys = new Uint32Array(new Float32Array(values).buffer);
  for (let at = 0; at < keys.length; at++) {
    const value = values[at];
    if (value !== value) keys[at] = NONE;
    else keys[at] = value === 0 ? 0x80000000 : keys[at] & 0x80000000 ? ~keys[at] : keys[at] | 0x80000000;
  }
  return keys;
}

// Places of names in alphabetical order; -1 and absent names are none.
function nameKeys(codes, names) {
  const order = names
    .map((name, code) => code)
    .sort((a, b) => (names[a] < names[b] ? -1 : names[a] > names[b] ? 1 : 0));
  const rank = new Uint32Array(names.length);
  order.forEach((code, place) => (rank[code] = place));
  return Uint32Array.from(codes, (code) => (code < 0 ? NONE : rank[code]));
}

function textKeys(texts) {
  let sorted = true;
  for (let at = 1; at < texts.length && sorted; at++) sorted = texts[at - 1] <= texts[at];
  const keys = new Uint32Array(texts.length);
  const order = Uint32Array.from(keys, (_, position) => position);
  if (!sorted) order.sort((a, b) => (texts[a] < texts[b] ? -1 : texts[a] > texts[b] ? 1 : a - b));
  order.forEach((position, place) => (keys[position] = place));
  return keys;
}

// A standing's place: kept, dropped, failed.
function standingKeys(page) {
  const { keep, failed } = page.column;
  return Uint32Array.from({ length: page.count }, (_, at) => (failed?.[at] ? 2 : keep?.[at] ? 0 : 1));
}

export class Orders {
  constructor(page) {
    this.page = page;
    this.known = new Map();
  }

  // (name, descending) → positions in that order; an unknown name is the page's own order.
  of(name, descending) {
    const label = `${descending ? "-" : ""}${name}`;
    if (!this.known.has(label)) {
      const keys = this.keys(name);
      if (descending) for (let at = 0; at < keys.length; at++) if (keys[at] !== NONE) keys[at] = NONE - 1 - keys[at];
      this.known.set(label, byKeys(keys));
    }
    return this.known.get(label);
  }

  keys(name) {
    const { page } = this;
    const score = page.scores.find((one) => one.name === name);
    if (score) return floatKeys(score.values);
    if (name === "key") return textKeys(page.column.key);
    if (name === "class") return nameKeys(page.column.label, page.classes);
    if (name === "suggested" && page.column.suggested) return nameKeys(page.column.suggested, page.classes);
    if (name === "kept") return standingKeys(page);
    return new Uint32Array(page.count);
  }

  knows(name) {
    return (
      ["", "key", "class", "suggested", "kept"].includes(name) || this.page.scores.some((one) => one.name === name)
    );
  }
}
