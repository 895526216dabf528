// Reads what cleanctl/report/page/columns.py wrote into this file: base64, gzip, small numbers.

const ARRAYS = { i8: Int8Array, i16: Int16Array, i32: Int32Array, f32: Float32Array };

export function facts() {
  return JSON.parse(document.getElementById("facts").textContent);
}

// Bytes of an element's base64 text; the element goes, since its text would be held twice.
export function takeBytes(id) {
  const element = document.getElementById(id);
  const text = atob(element.textContent);
  element.remove();
  const bytes = new Uint8Array(text.length);
  for (let at = 0; at < text.length; at++) bytes[at] = text.charCodeAt(at);
  return bytes;
}

async function unzipped(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

// One column by its name: an array of strings, a typed array of numbers, or for hex an array-like of strings.
export async function readColumn(name, spec, count) {
  const bytes = await unzipped(takeBytes(`column-${name}`));
  if (spec.kind === "strings") return JSON.parse(new TextDecoder().decode(bytes));
  if (spec.kind === "flags") return bits(bytes, count);
  if (spec.kind === "hex") return new Hexes(bytes, spec.width);
  const numbers = unshuffled(bytes, ARRAYS[spec.type], count);
  return spec.kind === "categories" ? new Categories(numbers, spec.values) : numbers;
}

function unshuffled(bytes, Type, count) {
  const width = Type.BYTES_PER_ELEMENT;
  const straight = new Uint8Array(count * width);
  for (let place = 0; place < width; place++) {
    const from = place * count;
    for (let row = 0, to = place; row < count; row++, to += width) straight[to] = bytes[from + row];
  }
  return new Type(straight.buffer);
}

function bits(bytes, count) {
  const flags = new Uint8Array(count);
  for (let row = 0; row < count; row++) flags[row] = (bytes[row >> 3] >> (row & 7)) & 1;
  return flags;
}

class Hexes {
  constructor(bytes, width) {
    Object.assign(this, { bytes, width });
  }

  at(row) {
    const own = this.bytes.subarray(row * this.width, (row + 1) * this.width);
    if (own.every((byte) => byte === 0)) return null;
    return Array.from(own, (byte) => byte.toString(16).padStart(2, "0")).join("");
  }
}

class Categories {
  constructor(codes, values) {
    Object.assign(this, { codes, values });
  }

  at(row) {
    return this.values[this.codes[row]];
  }
}
