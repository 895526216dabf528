"""How well each rule finds the right labels, on data with known truth: one command, one table.

    python -m bench.quality --cifar FOLDER --labels labels_train.csv --model MODEL [--cache FILE.npz] [--out FILE.jsonl]
    python -m bench.quality --task shapes --shapes FILE.npz [--out FILE.jsonl]
    python -m bench.quality --dynamics WORK --cifar … [--epochs 8] [--noise NAME,…]      trains networks on the images
    python -m bench.quality --doc FILE.md --out FILE.jsonl        writes the tables of what FILE.jsonl holds

CIFAR-10 is embedded with MODEL (a local open_clip folder; embeddings are cached in --cache); what the tasks are and
which rows are reported is said in bench.quality_tasks, what is compared in bench.quality_selectors: every rule at the
paper's and at the model's temperature, joint, and beside them cleanlab (left out where it is not installed) and small
loss. A line of --out holds one selector on one label set, the first of a run the machine; a run that is ended leaves
what it measured. Of several lines of one selector on one label set the last counts. --doc replaces what stands between
the markers, --plot draws the reliability. --dynamics is bench.quality_dynamics.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from bench.harness import machine
from bench.quality_dynamics import NOISES, measure_dynamics
from bench.quality_selectors import compared
from bench.quality_tasks import Task, cifar, embed, hundred, read_table, shapes, store_arrays

TASKS = ("cifar", "imbalanced", "shapes", "hundred")
MARKS = ("<!-- table: begin -->", "<!-- table: end -->")
KEY = (
    "intersection",
    "intersection, model",
    "zeroshot.loss",
    "zeroshot.loss, model",
    "zeroshot.consistency, model",
    "union, model",
    "cleanlab, zeroshot, model",
    "cleanlab, logistic, crossfit",
    "probe.margin",
    "joint",
    "joint, 200 verdicts",
)
RANKINGS = {
    "ap": "Average precision of the wrong labels",
    "recall_95": "Recall at a precision of 95 %",
    "recall_99": "Recall at a precision of 99 %",
    "miss": "Wrong labels missed with a budget as large as their number",
}


def measure(task: Task, known: dict[tuple[str, int | None], float]) -> Iterator[dict[str, Any]]:
    """known: recall of `intersection` by noise and draw, where joint and probe alone are to be measured again."""
    for noise, seed, label_N in task.labels:
        began = time.perf_counter()
        about = {"noise": noise, "seed": seed, "wrong": float((label_N != task.truth_N).mean())}
        yield from (about | one for one in compared(task, label_N, known.get((noise, seed))))
        print(f"{task.name}, {noise}, draw {seed}: {time.perf_counter() - began:.0f} s", flush=True)


# ---- tables


def markdown(rows: list[dict[str, Any]], *, whole: bool) -> str:
    """Selectors × noise, means over the draws. whole: every selector, precision and recall too."""
    noises, selectors = (list(dict.fromkeys(row[key] for row in rows)) for key in ("noise", "selector"))
    few = [name for name in KEY if name in selectors]
    shown = selectors if whole else few
    parts = [
        _table("F1", rows, noises, shown, lambda cell: _mean(cell, "f1", spread=True), average="f1"),
        *([_table("Precision / recall", rows, noises, shown, _both)] if whole else []),
        *([_table("ROC-AUC of the score", rows, noises, shown, lambda cell: _mean(cell, "auc"))] if whole else []),
        *(_table(title, rows, noises, few, lambda cell, key=key: _mean(cell, key)) for key, title in RANKINGS.items()),
        _stated_table(rows, noises),
    ]
    return "\n\n".join(parts)


def _table(
    title: str,
    rows: list[dict[str, Any]],
    noises: list[str],
    selectors: list[str],
    show: Callable[[list[dict[str, Any]]], str],
    average: str | None = None,
) -> str:
    wrong = {row["noise"]: row["wrong"] for row in rows}
    heads = [f"{noise} ({_percent(wrong[noise])} wrong)" for noise in noises] + (["mean"] if average else [])
    lines = [f"### {title}, in per cent", "", f"| | {' | '.join(heads)} |", "|---|" + "---:|" * len(heads)]
    for selector in selectors:
        cells = [[row for row in rows if (row["selector"], row["noise"]) == (selector, noise)] for noise in noises]
        values = [show(cell) for cell in cells]
        if all(value == "–" for value in values):
            continue
        if average:
            values.append(_percent(float(np.mean([np.mean([row[average] or 0 for row in cell]) for cell in cells]))))
        lines.append(f"| {selector} | {' | '.join(values)} |")
    return "\n".join(lines)


def _stated_table(rows: list[dict[str, Any]], noises: list[str]) -> str:
    """What joint states against the truth, in points."""
    heads = (
        "noise",
        "wrong",
        "stated wrong",
        "stated less true precision",
        "the same with --keep-precision 0.95",
        "after 200 verdicts: mean error, 9 of 10 below",
        "95 % interval: half its width, how often it holds the truth",
        "looks class-conditional",
        "precision at the recall of intersection, less its own",
    )
    lines = ["### What joint states, against the truth, in points", ""]
    lines += [f"| {' | '.join(heads)} |", "|---|" + "---:|" * (len(heads) - 1)]
    for noise in noises:
        of = {name: [row for row in rows if (row["selector"], row["noise"]) == (name, noise)] for name in _names(rows)}
        joint, high, after = of["joint"], of["joint, --keep-precision 0.95"], of["joint, 200 verdicts"]
        gain = [a["precision_at_intersection"] - b["precision"] for a, b in zip(joint, of["intersection"])]
        check = {str(row["check"]["class_conditional"]) for row in joint}
        cells = [
            noise,
            _mean(joint, "wrong"),
            _mean(joint, "stated_noise"),
            f"{100 * float(np.mean([row['error'] for row in joint])):+.1f}",
            f"{100 * float(np.mean([row['error'] for row in high])):+.1f}",
            f"{_mean(after, 'abs_error')}, {_mean(after, 'abs_error_90')}",
            f"±{_mean(after, 'half_width')}, {_mean(after, 'covered')} %",
            {"True": "yes", "False": "no", "None": "cannot tell"}[check.pop()] if len(check) == 1 else "not always",
            f"{100 * float(np.mean(gain)):+.1f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _names(rows: list[dict[str, Any]]) -> set[str]:
    return {row["selector"] for row in rows}


def _mean(cell: list[dict[str, Any]], key: str, *, spread: bool = False) -> str:
    values = [row[key] for row in cell if row.get(key) is not None]
    if not values:
        return "–"
    around = f" ± {100 * float(np.std(values, ddof=1)):.1f}" if spread and len(values) > 1 else ""
    return f"{100 * float(np.mean(values)):.1f}{around}"


def _both(cell: list[dict[str, Any]]) -> str:
    return f"{_mean(cell, 'precision')} / {_mean(cell, 'recall')}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"


def write_doc(doc: Path, results: Path) -> None:
    """Between the markers: the tables of each task's last line."""
    parts = []
    for name in TASKS:
        if rows := _rows_of(results, name):
            parts.append(f"## {name}\n\n{markdown(rows, whole=name == 'cifar')}")
    head, rest = doc.read_text().split(MARKS[0])
    tables = "\n\n".join(parts)
    doc.write_text(f"{head}{MARKS[0]}\n{tables}\n{MARKS[1]}{rest.split(MARKS[1])[1]}")


def _rows_of(results: Path, task: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in results.read_text().splitlines()]
    lines = [line for line in lines if line["suite"] == f"quality {task}" and "selector" in line]
    return list({(line["selector"], line["noise"], line["seed"]): line for line in lines}.values())


def draw_reliability(results: Path, out: Path) -> None:
    """Stated probability against the share that is right, a line a noise of the last `cifar`."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "cleanctl"
    from matplotlib import pyplot

    rows = _rows_of(results, "cifar")
    figure, axes = pyplot.subplots(figsize=(6.4, 5.2), layout="constrained")
    axes.plot([0, 1], [0, 1], color="black", linewidth=0.8, linestyle=":")
    axes.set_prop_cycle(color=[*matplotlib.colormaps["tab10"].colors, "black"])  # one colour for each kind of noise
    for row in rows:
        if row["selector"] == "joint" and row["seed"] in (None, 1):
            stated, right, _ = zip(*row["reliability"])
            style = "--" if row["noise"].startswith("idn") else "-"
            axes.plot(stated, right, marker="o", markersize=3, linestyle=style, label=row["noise"])
    axes.set_xlabel("P(label is right) that joint states")
    axes.set_ylabel("share of labels that are right")
    axes.legend(fontsize=7)
    axes.grid(alpha=0.3)
    figure.savefig(out, metadata={"Date": None} if out.suffix == ".svg" else None)


def tasks_of(options: argparse.Namespace) -> Task:
    if options.task == "hundred":
        return hundred()
    if options.task == "shapes":
        return shapes(options.shapes)
    table = read_table(options.labels)
    names = (options.classes or options.labels.with_name("classes.txt")).read_text().split()
    if options.cache and options.cache.exists():
        arrays = dict(np.load(options.cache))
    else:
        arrays = embed(options.cifar, table, options.model, names)
        if options.cache:
            np.savez(options.cache, **arrays)
    return cifar(arrays, table, names, thin=options.task == "imbalanced")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=TASKS, default="cifar")
    for name in ("cifar", "labels", "cache", "doc", "out", "plot"):
        parser.add_argument(f"--{name}", type=Path)
    parser.add_argument("--classes", type=Path, help="default: classes.txt beside --labels")
    parser.add_argument("--model")
    parser.add_argument("--dynamics", type=Path, metavar="WORK", help="folder for images, stores and runs")
    parser.add_argument("--epochs", type=int, default=8, help="of --dynamics")
    parser.add_argument("--noise", default=",".join(NOISES), help="kinds of noise that --dynamics takes")
    parser.add_argument("--again", action="store_true", help="measure joint and probe alone, beside what --out holds")
    parser.add_argument("--shapes", type=Path, help="a .npz; made of a demo's store with --shapes-store")
    parser.add_argument("--shapes-store", type=Path)
    options = parser.parse_args()
    if options.shapes_store:
        store_arrays(options.shapes_store, options.shapes)
    elif options.doc or options.plot:
        if options.doc:
            write_doc(options.doc, options.out)
        if options.plot:
            draw_reliability(options.out, options.plot)
    elif options.dynamics:
        given = {"epochs": options.epochs, "noises": options.noise.split(",")}
        rows = measure_dynamics(tasks_of(options), options.cifar, read_table(options.labels), options.dynamics, **given)
        write_rows(options.out, "quality dynamics", rows)
    else:
        before = _rows_of(options.out, options.task) if options.again else []
        known = {(row["noise"], row["seed"]): row["recall"] for row in before if row["selector"] == "intersection"}
        write_rows(options.out, f"quality {options.task}", measure(tasks_of(options), known))


def write_rows(out: Path | None, suite: str, rows: Iterator[dict[str, Any]]) -> None:
    """Each as it comes, the machine first."""
    with (out or Path(os.devnull)).open("a") as file:
        file.write(json.dumps({"suite": suite, "date": time.strftime("%Y-%m-%d"), **machine()}) + "\n")
        for row in rows:
            file.write(json.dumps({"suite": suite, **row}) + "\n")
            file.flush()


if __name__ == "__main__":
    main()
