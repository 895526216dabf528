// The rows of a view as CSV: the columns of the selection table, then what else the page holds of them.

import { className, digest, given, standing } from "./model.js";

// A cell that a spreadsheet would take for a formula gets an apostrophe in front; keys and names only, never numbers.
function text(value) {
  const safe = /^[=+\-@\t\r]/.test(value) ? `'${value}` : value;
  return /[",\n\r]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}

function numeric(value) {
  return value === undefined || Number.isNaN(value) ? "" : String(roundedDigits(value));
}

// A float32 in the fewest digits that say it to the four that the page holds.
function roundedDigits(value) {
  return Number.isInteger(value) ? value : Number(value.toPrecision(5));
}

function code(value) {
  return value === undefined || value < 0 ? "" : String(value);
}

function columnsOf(page, verdictOf) {
  const { column } = page;
  const parts = [
    ["key", (at) => text(column.key[at])],
    ["label", (at) => code(column.label[at])],
    ["label_name", (at) => text(given(page, at))],
    column.keep && ["keep", (at) => String(Boolean(column.keep[at]))],
    column.suggested && ["suggested_label", (at) => code(column.suggested[at])],
    column.suggested && ["suggested_name", (at) => text(className(page, "suggested", at))],
    column.p_label && ["p_label", (at) => numeric(column.p_label[at])],
    column.p_max && ["p_max", (at) => numeric(column.p_max[at])],
    ...page.rules.flatMap((rule) => [
      [text(`${rule.name}.score`), (at) => numeric(rule.score[at])],
      [text(`${rule.name}.keep`), (at) => String(Boolean(rule.keep[at]))],
    ]),
    (column.keep || column.failed) && ["status", (at) => (standing(page, at) === "failed" ? "failed" : "ok")],
    column.reason && ["reason", (at) => text(column.reason.at(at))],
    column.truth && ["truth_name", (at) => text(className(page, "truth", at))],
    column.group && ["group", (at) => code(column.group[at])],
    column.gain && ["gain", (at) => numeric(column.gain[at])],
    column.digest && ["digest", (at) => digest(page, at) ?? ""],
    ["verdict", (at) => verdictOf(at)?.verdict ?? ""],
    ["verdict_label", (at) => text(verdictOf(at)?.label ?? "")],
  ];
  return parts.filter(Boolean);
}

// Pieces of the file, for a Blob: one string of a hundred megabytes is more than a browser may hold.
export function csvOf(page, rows, verdictOf) {
  const columns = columnsOf(page, verdictOf);
  const pieces = [`${columns.map(([name]) => name).join(",")}\r\n`];
  for (let start = 0; start < rows.length; start += 4096) {
    const lines = Array.from(rows.subarray(start, start + 4096), (at) => columns.map(([, cell]) => cell(at)).join(","));
    pieces.push(`${lines.join("\r\n")}\r\n`);
  }
  return pieces;
}
