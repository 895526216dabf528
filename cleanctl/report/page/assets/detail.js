// Everything about one row: the large image, its labels, the evidence in words, a person's verdict.

import { make } from "./elements.js";
import { className, given, number, standing, storeRow } from "./model.js";
import { headline, labelEvidence, ruleEvidence, verdictInWords } from "./words.js";

// The large image: beside the file where there is one, else the thumbnail.
export function largeImage(page, source, position) {
  const url = source.large(position);
  if (!url) return make("p", { class: "no-image muted" }, noImage(page, position));
  const image = make("img", { class: "large", alt: page.column.key[position], src: url });
  image.addEventListener("error", () => {
    const other = source.small(position);
    if (other && image.src !== other) image.src = other;
    else image.replaceWith(make("p", { class: "no-image muted" }, "The image could not be shown."));
  });
  return image;
}

function noImage(page, position) {
  if (standing(page, position) === "failed") return "This image could not be read.";
  return "This file holds images of a sample, and this one is not among them; report --images folder writes more.";
}

export function labels(page, position) {
  const likely = className(page, "suggested", position);
  const same = likely === given(page, position);
  return make(
    "dl",
    { class: "labels" },
    make(
      "div",
      {},
      make("dt", {}, "Given"),
      make("dd", {}, given(page, position), probability(page.column.p_label, position)),
    ),
    likely &&
      make(
        "div",
        {},
        make("dt", {}, "Suggested"),
        make("dd", { class: same ? "" : "other" }, likely, probability(page.column.p_max, position)),
      ),
  );
}

function probability(values, position) {
  return values ? make("span", { class: "n muted" }, ` p ${number(values[position])}`) : null;
}

// blind: without the truth, where it is known, since that is what a reviewer is asked for.
export function evidence(page, position, { blind = false } = {}) {
  const rules = ruleEvidence(page, position).map(({ name, keeps, said }) =>
    make("li", { class: keeps ? "keeps" : "drops" }, make("strong", {}, name), make("span", {}, said)),
  );
  return make(
    "div",
    { class: "evidence" },
    make("p", { class: `headline ${standing(page, position)}` }, headline(page, position)),
    ...labelEvidence(page, position, blind).map((sentence) => make("p", {}, sentence)),
    rules.length > 0 && make("ul", {}, ...rules),
  );
}

// Fills `root`; actions: {close, review, group} are offered where they are given.
export function showDetail(root, page, source, position, verdict, actions) {
  const key = page.column.key[position];
  const group = page.column.group?.[position] ?? -1;
  const head = make(
    "div",
    { class: "detail-head" },
    make("h3", {}, key),
    actions.close && make("button", { type: "button", class: "close", onclick: actions.close }, "Close"),
  );
  root.replaceChildren(
    head,
    largeImage(page, source, position),
    labels(page, position),
    evidence(page, position),
    ...[verdict && make("p", { class: "verdict" }, verdictInWords(verdict))].filter(Boolean),
    make(
      "p",
      { class: "actions" },
      actions.review && make("button", { type: "button", onclick: () => actions.review(position) }, "Review from here"),
      group >= 0 && make("button", { type: "button", onclick: () => actions.group(group) }, `Conflict group ${group}`),
    ),
    make("p", { class: "muted small" }, `Row ${storeRow(page, position)} of split ${page.split}`),
  );
}
