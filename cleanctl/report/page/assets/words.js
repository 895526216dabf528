// The evidence of one row in sentences: what it is, what each rule says of it, by how much, by which criterion.

import { className, cutOf, given, number, standing } from "./model.js";

export function verdictInWords(verdict) {
  if (!verdict) return "";
  const said = {
    keep: "Label kept",
    drop: "Label dropped",
    skip: "Skipped",
    relabel: `Relabelled as ${verdict.label}`,
  };
  const who = verdict.by ? ` by ${verdict.by}` : "";
  return `${said[verdict.verdict]}${who}${verdict.at ? `, ${verdict.at.slice(0, 16).replace("T", " ")} UTC` : ""}.`;
}

// One sentence on where the row stands.
export function headline(page, position) {
  const reason = page.column.reason?.at(position);
  const rules = page.rules.length;
  const keeping = page.rules.filter((rule) => rule.keep[position]).length;
  const counted = rules ? ` ${keeping} of ${rules} ${rules === 1 ? "rule keeps" : "rules keep"} it.` : "";
  switch (standing(page, position)) {
    case "failed":
      return `The image could not be read${reason ? `: ${reason}` : ""}. No rule saw it.`;
    case "kept":
      return `Kept.${counted}`;
    case "dropped":
      return `Dropped.${counted}`;
    default:
      return counted.trim();
  }
}

// Sentences on the label itself; without the truth where they are for a blind reviewer.
export function labelEvidence(page, position, blind) {
  const { p_label, p_max, suggested, truth } = page.column;
  const label = given(page, position);
  const likely = className(page, "suggested", position);
  const sentences = [];
  if (suggested && likely && likely !== label) {
    const odds =
      p_label && p_max ? `: probability ${number(p_max[position])} against ${number(p_label[position])}` : "";
    sentences.push(`Looks like ${likely} rather than ${label}${odds}.`);
  } else if (likely) {
    sentences.push(
      `${label} is also the likeliest class${p_label ? `, with probability ${number(p_label[position])}` : ""}.`,
    );
  }
  if (blind || !truth) return sentences;
  if (truth[position] === -2) sentences.push("The label is known to be wrong.");
  else if (truth[position] >= 0) {
    const right = truth[position] === page.column.label[position];
    sentences.push(right ? `The label is known to be right.` : `True class: ${className(page, "truth", position)}.`);
  }
  return sentences;
}

// {name, keeps, said} of each rule.
export function ruleEvidence(page, position) {
  if (page.column.failed?.[position]) return [];
  return page.rules.map((rule) => {
    const keeps = Boolean(rule.keep[position]);
    const criterion = rule.criterion ? ` It keeps labels whose ${rule.criterion}.` : "";
    return {
      name: rule.name,
      keeps,
      said: `${keeps ? "Keeps" : "Drops"} it${distance(page, rule, position)}.${criterion}`,
    };
  });
}

function distance(page, rule, position) {
  const score = rule.score[position];
  if (Number.isNaN(score)) return ": it has no score";
  const cut = cutOf(page, rule, position);
  if (cut === null || cut === undefined) return `: score ${number(score)}`;
  const above = score >= cut;
  const contrary = above !== Boolean(rule.keep[position]);
  const side = `${number(Math.abs(score - cut))} ${above ? "above" : "below"} the cut ${number(cut)}`;
  const whose = Array.isArray(rule.cut) ? ` of ${given(page, position)}` : "";
  return `${contrary ? ", although its" : ":"} score ${number(score)} is ${side}${whose}`;
}
