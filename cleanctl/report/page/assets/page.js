// Opens the page: reads its columns and sets up its parts.

import { facts, readColumn } from "./columns.js";

async function open() {
  const page = facts();
  const columns = {};
  for (const [name, spec] of Object.entries(page.columns)) columns[name] = await readColumn(name, spec, page.count);
  return columns;
}

open();
