// The page's columns, and questions about one row. A position is a place in the columns, a store row its number.

import { facts, readColumn } from "./columns.js";

export async function readPage() {
  const page = facts();
  const names = Object.keys(page.columns);
  const read = await Promise.all(names.map((name) => readColumn(name, page.columns[name], page.count)));
  page.column = Object.fromEntries(names.map((name, number) => [name, read[number]]));
  page.rules.forEach((rule, number) => {
    rule.score = page.column[`rule${number}.score`];
    rule.keep = page.column[`rule${number}.keep`];
  });
  page.scores = scoresOf(page);
  page.positions = page.column.row && new Map(Array.from(page.column.row, (row, position) => [row, position]));
  return page;
}

// What can be filtered by range: name in the fragment, title, values.
function scoresOf(page) {
  const scores = [
    { name: "p_label", title: "p given", values: page.column.p_label },
    { name: "p_max", title: "p likeliest", values: page.column.p_max },
    ...page.rules.map((rule) => ({ name: rule.name, title: rule.name, values: rule.score })),
    { name: "gain", title: "expected gain", values: page.column.gain },
  ];
  return scores.filter((score) => score.values);
}

export function storeRow(page, position) {
  return page.column.row ? page.column.row[position] : position;
}

// The position of a store row, or -1 where the page does not have it.
export function positionOf(page, row) {
  if (page.positions) return page.positions.get(row) ?? -1;
  return Number.isInteger(row) && row >= 0 && row < page.count ? row : -1;
}

export function given(page, position) {
  return page.classes[page.column.label[position]] ?? "";
}

export function className(page, column, position) {
  const values = page.column[column];
  return values && values[position] >= 0 ? page.classes[values[position]] : "";
}

// "kept", "dropped", "failed", or "" where there is no selection.
export function standing(page, position) {
  if (page.column.failed?.[position]) return "failed";
  if (!page.column.keep) return "";
  return page.column.keep[position] ? "kept" : "dropped";
}

export function digest(page, position) {
  return page.column.digest ? page.column.digest.at(position) : null;
}

// The score from which a rule keeps labels of this class, or null.
export function cutOf(page, rule, position) {
  return Array.isArray(rule.cut) ? rule.cut[page.column.label[position]] : rule.cut;
}

// Numbers as people read them: three digits after the point, four significant ones where they are tiny or large.
export function number(value) {
  if (value === undefined || value === null || Number.isNaN(value)) return "–";
  const size = Math.abs(value);
  if (value !== 0 && (size < 0.001 || size >= 100000)) return minus(value.toExponential(2));
  return minus(value.toFixed(size < 100 ? 3 : 1));
}

function minus(text) {
  return text.replace("-", "\u2212");
}

export function counted(value) {
  return value.toLocaleString("en-US");
}

export function plural(value, one, many) {
  return `${counted(value)} ${value === 1 ? one : many}`;
}
