// A view in the URL's fragment: #table?class=cat&kept=no&sort=-p_label&row=17. Only what differs from the open view.

import { FIELDS, OPEN } from "./filters.js";

export function toFragment(view, extra = {}) {
  const words = new URLSearchParams();
  for (const field of FIELDS) if (view[field] !== OPEN[field]) words.set(field, view[field]);
  for (const [name, value] of Object.entries(extra)) if (value !== null && value !== undefined) words.set(name, value);
  const text = words.toString();
  return text ? `#table?${text}` : "#table";
}

// The view of a fragment, {view, row, review}, or null where it leads elsewhere.
export function fromFragment(fragment) {
  if (fragment !== "#table" && !fragment.startsWith("#table?")) return null;
  const words = new URLSearchParams(fragment.slice("#table?".length));
  const view = { ...OPEN };
  for (const field of FIELDS) if (words.has(field)) view[field] = words.get(field);
  return { view, row: words.has("row") ? Number(words.get("row")) : null, review: words.get("review") === "1" };
}
