"""What can be measured: the selection against a truth, the training runs against each other, and what failed."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np

from cleanctl.report import svg
from cleanctl.report.page.record import Section
from cleanctl.report.quality import Quality
from cleanctl.report.runs import SHOWN, RunRecord, Runs
from cleanctl.report.snapshot import Snapshot
from cleanctl.report.text import count, decimal, numbers, paragraph, percent, shown, table

FAILURES = 200
MEMBERS = (("members", "take part", "ink"), ("absorbed", "absorbed", "accent"), ("relabelled", "relabelled", "keep"),
           ("dropped", "left out", "muted"))  # fmt: skip


def quality(found: Quality, snapshot: Snapshot) -> Section:
    """Precision and recall of the selection and of each rule; the store knows the truth of these rows."""
    html = paragraph(
        f"The store knows the true label of {count(found.count)} samples; {percent(found.noise)} of their given labels "
        "are wrong. No rule has seen the truth."
    )
    html += numbers(
        [
            (percent(found.found.precision), "precision", "of the kept labels are right"),
            (percent(found.found.recall), "recall", "of the right labels are kept"),
            (percent(found.suggested), "suggestions", "of the wrong labels have their true class suggested"),
        ]
    )
    head = ["rule", "kept", "precision", "recall", "F1", "ROC-AUC"]
    rows = [
        [shown(name), count(one.kept), percent(one.precision), percent(one.recall), percent(one.f1), decimal(auc)]
        for name, (one, auc) in found.rules.items()
    ]
    one = found.found
    bold = [count(one.kept), percent(one.precision), percent(one.recall), percent(one.f1), "–"]
    rows.append([f"<b>{cell}</b>" for cell in (shown(snapshot.selection.name), *bold)])
    html += table(head, rows, numbers=(1, 2, 3, 4, 5))
    html += "<details><summary>By class</summary>\n"
    html += table(
        ["class", "samples", "wrong labels", "precision", "recall"],
        [
            [shown(snapshot.classes[place]), count(size), percent(noise), percent(one.precision), percent(one.recall)]
            for place, size, noise, one in found.classes
        ],
        numbers=(1, 2, 3, 4),
    )
    return Section(id="quality", title="Quality", html=f"{html}</details>\n", wide=True)


def runs(found: Runs) -> Section | None:
    """Outcomes, accuracy by epoch, and who took part."""
    if not found.runs:
        return None
    baseline = next((run for run in found.runs if run.baseline and run.last_top1 is not None), None)
    head = ["run", "method", "trained on", "epochs", "last epoch", "best epoch", "against all labels"]
    html = table(head, [_outcome(run, baseline) for run in found.runs], numbers=(3, 4, 5, 6))
    if any(run.best_top1 is not None and run.chosen_on == run.test_split for run in found.runs):
        html += paragraph("The best epoch was picked on the split it is tested on, which flatters.", note=True)
    if found.damaged:
        html += paragraph(f"Cannot be read: {', '.join(map(shown, found.damaged))}.", note=True)
    with_history = [run for run in found.runs if run.history]
    html += _accuracy(with_history)
    parts = "".join(_members(run) for run in with_history[:SHOWN])
    if parts:
        html += "<h3>Who takes part, epoch by epoch</h3>\n"
        html += paragraph("Absorbed samples lie outside the selection and take part with the label they were given.")
        html += f'<div class="charts">{parts}</div>\n'
    return Section(id="runs", title="Training runs", html=html, wide=True)


def _outcome(run: RunRecord, baseline: RunRecord | None) -> list[str]:
    gain = "–"
    if baseline is not None and run.last_top1 is not None and baseline.last_top1 is not None and not run.baseline:
        gain = f"{100 * (run.last_top1 - baseline.last_top1):+.1f} points"
    epochs = f"{len(run.history)} of {run.epochs}" + ("" if run.state == "finished" else f", {run.state}")
    trained_on = "all labels" if run.baseline else run.selection
    best = f"{percent(run.best_top1)}" + (f" ({run.best_epoch})" if run.best_epoch is not None else "")
    return [
        shown(run.name), shown(run.method), shown(trained_on), epochs, percent(run.last_top1), best,
        "baseline" if run is baseline else gain,
    ]  # fmt: skip


def _accuracy(runs: list[RunRecord]) -> str:
    lines, losses = [], []
    for run, dash in zip(runs[:SHOWN], svg.DASHES):
        epoch, kind = run.series("epoch"), "muted" if run.baseline else "accent"
        if np.isfinite(run.series("test_top1")).any():
            lines.append(svg.Line(name=run.name, x_P=epoch, y_P=run.series("test_top1"), kind=kind, dash=dash))
        losses.append(svg.Line(name=run.name, x_P=epoch, y_P=run.series("loss"), kind=kind, dash=dash))
    parts = []
    if lines:
        chart = svg.line_chart("test accuracy by epoch", lines)
        parts.append(f"<figure>{chart}<figcaption>Accuracy on the test split</figcaption></figure>")
    if any(np.isfinite(line.y_P).any() for line in losses):
        chart = svg.line_chart("training loss by epoch", losses, shares=False)
        parts.append(
            f"<figure>{chart}<figcaption>Training loss; of different methods it is not comparable</figcaption></figure>"
        )
    said = (
        paragraph(f"The {SHOWN} most accurate of {len(runs)} runs are drawn.", note=True) if len(runs) > SHOWN else ""
    )
    return said + (f'<div class="charts">{"".join(parts)}</div>\n' if parts else "")


def _members(run: RunRecord) -> str:
    """Nothing of a run whose members never change."""
    lines = [
        svg.Line(name=name, x_P=run.series("epoch"), y_P=run.series(field), kind=kind, dash=dash)
        for (field, name, kind), dash in zip(MEMBERS, svg.DASHES)
        if np.nanmax(run.series(field), initial=0) > 0
    ]
    if len(run.history) < 2 or not {"absorbed", "relabelled"} & {line.name for line in lines}:
        return ""
    chart = svg.line_chart(f"members of {run.name}", lines, size=(400, 210), shares=False, from_zero=True)
    accuracy = run.history[-1].get("label_accuracy")
    known = "" if accuracy is None else f"; {percent(accuracy)} of the labels in the last epoch are right"
    return f"<figure>{chart}<figcaption><b>{shown(run.name)}</b>{known}</figcaption></figure>"


def failures(snapshot: Snapshot) -> Section | None:
    """Images that could not be read, and why."""
    if not snapshot.reasons:
        return None
    kinds = Counter(_kind(reason) for reason in snapshot.reasons.values())
    html = paragraph(
        f"{count(len(snapshot.reasons))} of {count(len(snapshot))} images could not be read; no selection keeps them."
    )
    html += table(
        ["reason", "images"], [[shown(kind), count(number)] for kind, number in kinds.most_common()], numbers=(1,)
    )
    first = list(snapshot.reasons.items())[:FAILURES]
    html += f"<details><summary>{'All' if len(first) == len(snapshot.reasons) else f'The first {FAILURES}'}</summary>\n"
    html += table(["image", "reason"], [[shown(snapshot.keys[row]), shown(reason)] for row, reason in first])
    return Section(id="failures", title="Failures", html=f"{html}</details>\n")


def _kind(reason: str) -> str:
    """The reason without the numbers of one file."""
    return re.sub(r"\d[\d,.]*", "…", reason)[:80]
