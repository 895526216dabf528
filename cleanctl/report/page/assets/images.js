// Where images come from: the thumbnails in this file, a folder beside it, or the server that it was opened from.

import { takeBytes } from "./columns.js";
import { positionOf, storeRow } from "./model.js";

export const served = location.protocol === "http:" || location.protocol === "https:";

export function images(page) {
  const { row: rows, end } = page.thumbnails;
  const bytes = rows.length ? takeBytes("thumbnails") : null;
  const place = new Map(rows.map((row, number) => [row, number]));
  const urls = new Map();

  function thumbnail(row) {
    const number = place.get(row);
    if (number === undefined) return null;
    if (!urls.has(row)) {
      const part = bytes.subarray(number ? end[number - 1] : 0, end[number]);
      urls.set(row, URL.createObjectURL(new Blob([part], { type: "image/jpeg" })));
    }
    return urls.get(row);
  }

  function elsewhere(row) {
    if (served) return `image/${row}`;
    return page.image_folder ? `${encodeURI(page.image_folder)}/${row}.jpg` : null;
  }

  return {
    small: (position) => thumbnail(storeRow(page, position)) ?? elsewhere(storeRow(page, position)),
    large: (position) => elsewhere(storeRow(page, position)) ?? thumbnail(storeRow(page, position)),
    ofRow: (row) => thumbnail(row) ?? elsewhere(row),
  };
}

// Fills the images of ready sections in, and lets their buttons open a row.
export function wireSections(page, source, open) {
  for (const image of document.querySelectorAll("main img[data-row]")) {
    const url = source.ofRow(Number(image.dataset.row));
    image.decoding = "async";
    image.loading = url?.startsWith("blob:") ? "eager" : "lazy"; // what is in this file costs nothing to show
    if (url) image.src = url;
    else image.classList.add("missing");
  }
  document.querySelector("main").addEventListener("click", (event) => {
    const button = event.target.closest("button[data-row]");
    if (!button) return;
    const position = positionOf(page, Number(button.dataset.row));
    if (position >= 0) open(position);
  });
}
