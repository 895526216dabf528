"""Whether the intervals of `cleanctl audit` cover the truth, and how wide they are beside those of a random sample.

    python -m bench.audit --cifar FOLDER --labels labels_train.csv --model MODEL [--cache FILE.npz] [--scores FILE.npz]
                          [--out FILE.jsonl]
    python -m bench.audit --doc FILE.md --out FILE.jsonl        writes the table of what FILE.jsonl holds

The eleven label sets of bench.quality on its reported rows, 20,000-29,999 of CIFAR-10; of made noise draw 1. Of each,
the selections `intersection` and `joint`, strata by joint's P, and `intersection` with strata by logistic's P. SEEDS
samples of LOOKS labels each: coverage of the 95 % intervals for noise rate, precision and recall, and their mean width
in the first WIDTHS of them; the same for as many labels drawn at random (Clopper and Pearson's intervals, SEEDS
samples). Coverage is also counted over MORE samples. `limit` is the ratio of widths that the best allocation for that
quantity alone could reach in 40 bands of the score, were the truth known. --scores keeps probabilities and selections
between runs.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import beta

from bench.harness import machine
from bench.quality_selectors import rules_of
from bench.quality_tasks import Task, cifar, embed, read_table
from cleanctl.config import SelectConfig
from cleanctl.review.quantities import QUANTITIES, Looks, covers, estimate
from cleanctl.review.strata import draw, plan
from cleanctl.score.blocks import ArrayBlocks
from cleanctl.score.compute import open_scorer, posterior_of
from cleanctl.score.scorer import ALONE, Rows

LOOKS, SEEDS, MORE = 200, 100, 300
WIDTHS = 25  # of the samples whose limits are computed; coverage needs but the tests at the truth
BANDS, LEVEL = 20, 0.95
INFORMATIVE = 1 / 3  # highest limit of what counts as a score that tells much of a quantity
CASES = (("intersection", "joint"), ("joint", "joint"), ("intersection", "logistic"))  # (selection, strata by)
MARKS = ("<!-- table: begin -->", "<!-- table: end -->")


def scores_of(task: Task) -> dict[str, np.ndarray]:
    """`<noise>/<name>`: label, clean, intersection, joint (bool kept), p-joint, p-logistic."""
    found = {}
    for noise, seed, label_N in task.labels:
        if seed not in (None, 1):
            continue
        began = time.perf_counter()
        blocks = ArrayBlocks(image_ND=task.image_ND)
        some = {"num_classes": task.classes}
        zeroshot = posterior_of("zeroshot", blocks, label_N, text=task.text, **some)
        logistic = posterior_of("logistic", blocks, label_N, **some)
        rules = [rules_of(one, label_N, task.classes) for one in (zeroshot, logistic)]
        keep_N = np.all([one[name].keep_N for one in rules for name in ("loss", "consistency")], axis=0)
        scorer = open_scorer("joint", SelectConfig(temperature=1 / task.scale))
        rows = Rows(blocks=blocks, label_N=label_N, text=task.text, **some)
        p_N = scorer.posterior(scorer.fit(rows, ALONE), rows).p_label
        values = {"label": label_N, "clean": label_N == task.truth_N, "intersection": keep_N, "joint": p_N >= 0.5}
        values |= {"p-joint": p_N, "p-logistic": logistic.p_label}
        found |= {f"{noise}/{name}": array for name, array in values.items()}
        print(f"{noise}: scores in {time.perf_counter() - began:.0f} s", flush=True)
    return found


def measure(scores: dict[str, np.ndarray]) -> Iterator[dict[str, Any]]:
    """One record a label set and case, with what each quantity reaches."""
    for selection, by in CASES:
        for noise in dict.fromkeys(name.rpartition("/")[0] for name in scores):
            began = time.perf_counter()
            keep_N, p_N, clean_N, label_N = (
                scores[f"{noise}/{name}"] for name in (selection, f"p-{by}", "clean", "label")
            )
            found = one_case(p_N, keep_N, clean_N, label_N)
            yield {"noise": noise, "selection": selection, "by": by, "quantities": found}
            print(f"{noise}, {selection} by {by}: {time.perf_counter() - began:.0f} s", flush=True)


def one_case(p_N: np.ndarray, keep_N: np.ndarray, clean_N: np.ndarray, label_N: np.ndarray) -> dict[str, Any]:
    truth = {"noise": 1 - clean_N.mean(), "precision": clean_N[keep_N].mean(), "recall": keep_N[clean_N].mean()}
    looks = sampled(p_N, keep_N, clean_N, label_N, MORE)
    counts = {name: getattr(looks, name)[:WIDTHS] for name in ("right_GH", "wrong_GH", "unknown_GH")}
    first = replace(looks, **counts)
    random = at_random(keep_N, clean_N)
    limits = limits_of(p_N, keep_N, clean_N)
    found = {}
    for name, value in truth.items():
        interval = estimate(name, first)
        assert interval is not None
        covered_G = covers(name, looks, float(value))
        low_G, high_G = random[name]
        found[name] = {
            "truth": float(value),
            "covered": int(covered_G[:SEEDS].sum()),
            "covered_more": int(covered_G.sum()),
            "width": float((interval.high_G - interval.low_G).mean()),
            "error": float(np.sqrt(((interval.value_G - value) ** 2).mean())),
            "random_covered": int(((low_G <= value) & (value <= high_G)).sum()),
            "random_width": float((high_G - low_G).mean()),
            "limit": limits[name],
        }
        found[name]["ratio"] = found[name]["width"] / found[name]["random_width"]
    return found


def sampled(p_N: np.ndarray, keep_N: np.ndarray, clean_N: np.ndarray, label_N: np.ndarray, count: int) -> Looks:
    """`count` samples as `review sample` draws them."""
    made = plan(p_N, keep_N, LOOKS)
    wrong_GH = np.zeros((count, len(made.size_H)), np.int64)
    for seed in range(count):
        row_n = draw(made.stratum_N, made.looks_H, label_N, np.random.default_rng([seed, 13]))
        wrong_GH[seed] = np.bincount(made.stratum_N[row_n], weights=~clean_N[row_n], minlength=len(made.size_H))
    return Looks(
        size_H=made.size_H,
        keep_H=made.keep_H,
        right_GH=made.looks_H - wrong_GH,
        wrong_GH=wrong_GH,
        unknown_GH=0 * wrong_GH,
    )


def at_random(keep_N: np.ndarray, clean_N: np.ndarray) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Limits (SEEDS,) from LOOKS labels at random: of all, of those that are kept, of those that are right."""
    rng = np.random.default_rng(1)
    hits, counts = [], []
    for _ in range(SEEDS):
        row_n = rng.choice(len(keep_N), LOOKS, replace=False)
        keep_n, clean_n = keep_N[row_n], clean_N[row_n]
        hits.append((int((~clean_n).sum()), int((clean_n & keep_n).sum()), int((clean_n & keep_n).sum())))
        counts.append((LOOKS, int(keep_n.sum()), int(clean_n.sum())))
    pairs = zip(QUANTITIES, np.array(hits).T, np.array(counts).T, strict=True)
    return {name: clopper_pearson(hits_G, counts_G) for name, hits_G, counts_G in pairs}


def clopper_pearson(hits_G: np.ndarray, counts_G: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    out = (1 - LEVEL) / 2
    misses_G = counts_G - hits_G
    low_G = beta.ppf(out, np.maximum(hits_G, 1), misses_G + 1)
    high_G = beta.ppf(1 - out, hits_G + 1, np.maximum(misses_G, 1))
    return np.where(hits_G > 0, low_G, 0.0), np.where(misses_G > 0, high_G, 1.0)


def limits_of(p_N: np.ndarray, keep_N: np.ndarray, clean_N: np.ndarray) -> dict[str, float]:
    """Quantity → least ratio of standard deviations, with the true variance in BANDS bands of each side."""
    band_N = np.zeros(len(p_N), np.int64)
    for side, side_N in enumerate((keep_N, ~keep_N)):
        row_M = np.flatnonzero(side_N)
        row_M = row_M[np.argsort(p_N[row_M], kind="stable")]
        band_N[row_M] = side * BANDS + np.arange(len(row_M)) * BANDS // max(len(row_M), 1)
    size_B = np.maximum(np.bincount(band_N, minlength=2 * BANDS), 1)
    wrong_B = np.bincount(band_N, weights=~clean_N, minlength=2 * BANDS) / size_B
    kept, right, recall = keep_N.sum(), clean_N.sum(), keep_N[clean_N].mean()
    wrong, lost = 1 - clean_N.mean(), 1 - clean_N[keep_N].mean()
    slope = {
        "noise": np.full(len(p_N), 1 / len(p_N)),
        "precision": np.where(keep_N, 1 / kept, 0.0),
        "recall": np.where(keep_N, (1 - recall) / right, recall / right),
    }
    random = {
        "noise": wrong * (1 - wrong),
        "precision": lost * (1 - lost) * len(p_N) / kept,
        "recall": recall * (1 - recall) * len(p_N) / right,
    }
    spread_N = np.sqrt(wrong_B * (1 - wrong_B))[band_N]
    return {name: float(slope[name] @ spread_N / np.sqrt(random[name])) for name in QUANTITIES}


# ---- the table


def markdown(rows: list[dict[str, Any]]) -> str:
    lines = []
    for selection, by in CASES:
        mine = [row for row in rows if (row["selection"], row["by"]) == (selection, by)]
        lines += [f"### {selection}, strata by {by}", ""]
        lines += [
            "| | " + " | ".join(f"{name}: truth | covers | width | of random | limit" for name in QUANTITIES) + " |"
        ]
        lines += ["|---|" + "---:|" * 5 * len(QUANTITIES)]
        lines += [f"| {row['noise']} | " + " | ".join(_cells(row["quantities"][name]) for name in QUANTITIES) + " |"
                  for row in mine]  # fmt: skip
        lines += [""]
    return "\n".join([*lines, _summary(rows)])


def _cells(found: dict[str, Any]) -> str:
    ratio = f"{found['ratio']:.2f}"
    told = f"**{ratio}**" if found["limit"] <= INFORMATIVE else ratio
    covered = f"{found['covered']}, {found['covered_more'] * 100 / MORE:.1f}"
    return f"{100 * found['truth']:.1f} | {covered} | {100 * found['width']:.1f} | {told} | {found['limit']:.2f}"


def _summary(rows: list[dict[str, Any]]) -> str:
    cells = [one for row in rows for one in row["quantities"].values()]
    strong = [one for one in cells if one["limit"] <= INFORMATIVE]
    narrow = sum(one["ratio"] <= 0.5 for one in strong)
    mean = np.mean([one["covered_more"] for one in cells]) * 100 / MORE
    return (
        f"{len(cells)} intervals: the fewest that cover are {min(one['covered'] for one in cells)} of {SEEDS} and "
        f"{min(one['covered_more'] for one in cells):,} of {MORE:,}; the mean is {mean:.1f} %. Of the {len(strong)} "
        f"whose limit is at most 1/3 (bold), {narrow} are at most half as wide as those of random looks; of all "
        f"{len(cells)}, {sum(one['ratio'] <= 0.5 for one in cells)}."
    )


def write_doc(doc: Path, results: Path) -> None:
    """Between the markers: the table of the last run in the results."""
    lines = [json.loads(line) for line in results.read_text().splitlines()]
    last = max(place for place, line in enumerate(lines) if "noise" not in line)
    head, rest = doc.read_text().split(MARKS[0])
    doc.write_text(f"{head}{MARKS[0]}\n{markdown(lines[last + 1 :])}\n{MARKS[1]}{rest.split(MARKS[1])[1]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("cifar", "labels", "cache", "scores", "doc", "out"):
        parser.add_argument(f"--{name}", type=Path)
    parser.add_argument("--model")
    options = parser.parse_args()
    if options.doc:
        write_doc(options.doc, options.out)
        return
    if options.scores and options.scores.exists():
        scores = dict(np.load(options.scores))
    else:
        table = read_table(options.labels)
        names = options.labels.with_name("classes.txt").read_text().split()
        cached = options.cache and options.cache.exists()
        arrays = dict(np.load(options.cache)) if cached else embed(options.cifar, table, options.model, names)
        scores = scores_of(cifar(arrays, table, names, thin=False))
        if options.scores:
            np.savez(options.scores, **scores)
    with options.out.open("a") as file:
        head = {"suite": "audit", "date": time.strftime("%Y-%m-%d"), "looks": LOOKS, "seeds": SEEDS, "more": MORE}
        file.write(json.dumps({**head, **machine()}) + "\n")
        for row in measure(scores):
            file.write(json.dumps({"suite": "audit", **row}) + "\n")
            file.flush()


if __name__ == "__main__":
    main()
