"""What `eval` tells."""

from __future__ import annotations

from typing import Any

from rich.markup import escape
from rich.table import Table

from cleanctl.cli.tables.shared import Summary, decimal, new_table, percent
from cleanctl.results import Detection, EvalReport, SelectionQuality

SHOWN_CLASSES, SHOWN_PAIRS = 10, 5  # --json has all


def eval_tables(record: EvalReport) -> list[Any]:
    """Each number that could be had; the notes (on stderr) say why another could not."""
    shown: list[Any] = []
    if quality := record.selection:
        shown.append(_quality_table(quality))
    if record.zero_shot:
        table = new_table("Zero-shot accuracy (prompts pooled; nearest prompt)", "split", "images", "top-1", "nearest")
        for zero in record.zero_shot:
            against = f"{escape(zero.split)}, against {zero.against}"
            table.add_row(against, f"{zero.pooled.count:,}", percent(zero.pooled.top1), percent(zero.nearest.top1))
        shown.append(table)
    if record.runs:
        flatters = any(run.chosen_on == run.split for run in record.runs)
        title = f"Trained networks{' (* the epoch was chosen on this split, which flatters)' if flatters else ''}"
        table = new_table(title, "run", "split", "images", "top-1", "top-5")
        table.columns[1].justify = "left"
        for run in record.runs:
            name = f"{escape(run.run)}, {run.checkpoint} (epoch {run.epoch})"
            split = escape(run.split) + ("*" if run.chosen_on == run.split else "")
            found = run.accuracy
            table.add_row(name, split, f"{found.count:,}", percent(found.top1), percent(found.top5))
        shown.append(table)
        shown += _mistakes(record)
    return [*shown, _summary(record)]


def _summary(record: EvalReport) -> Summary:
    said = []
    if quality := record.selection:
        rates = (decimal(rate) for rate in (quality.found.precision, quality.found.recall))
        said.append("Selection [bold]{}[/bold]: precision {}, recall {}.".format(escape(quality.name), *rates))
    for run in record.runs:
        if run.checkpoint == "last":
            top1 = percent(run.accuracy.top1)
            said.append(f"Run [bold]{escape(run.run)}[/bold]: {top1} top-1 on {escape(run.split)}, last epoch.")
    if not (said or record.zero_shot):
        said.append("Nothing can be measured yet; the notes above say what is missing.")
    following = ("cleanctl report --open", "cleanctl export clean/ --to links") if record.runs else ("cleanctl train",)
    return Summary(tuple(said), following if record.runs or record.selection else ())


def _mistakes(record: EvalReport) -> list[Any]:
    """Of the last epoch of each run on each split: the classes that are told worst, and what they are taken for."""
    shown: list[Any] = []
    for run in record.runs:
        found = run.accuracy
        if run.checkpoint != "last" or found.confusion is None or not found.confusion.samples:
            continue
        where = f"{escape(run.run)}, last, on {escape(run.split)}"
        known = [(share, k) for k, share in enumerate(found.per_class) if share is not None]
        more = f" (the {SHOWN_CLASSES} worst of {len(known)})" if len(known) > SHOWN_CLASSES else ""
        classes = new_table(f"By class{more}: {where}", "class", "images", "top-1")
        for share, k in sorted(known)[:SHOWN_CLASSES]:
            classes.add_row(escape(record.classes[k]), f"{found.seen[k]:,}", percent(share))
        pairs = new_table(f"Most confused: {where}", "class", "called", "images")
        pairs.columns[1].justify = "left"
        wrong = found.confusion
        for actual, predicted, count in list(zip(wrong.actual, wrong.predicted, wrong.samples))[:SHOWN_PAIRS]:
            pairs.add_row(escape(record.classes[actual]), escape(record.classes[predicted]), f"{count:,}")
        shown += [classes, pairs]
    return shown


def _quality_table(quality: SelectionQuality) -> Table:
    title = f"Selection against the truth ({percent(quality.noise)} of the labels are wrong)"
    table = new_table(title, "rule", "kept", "precision", "recall", "F1", "ROC-AUC")
    for rule in quality.rules:
        _add_found(table, rule.rule, rule.found, decimal(rule.auc))
    table.add_section()
    _add_found(table, escape(quality.name), quality.found, "", style="bold")
    return table


def _add_found(table: Table, name: str, found: Detection, auc: str, style: str | None = None) -> None:
    rates = (decimal(rate) for rate in (found.precision, found.recall, found.f1))
    table.add_row(name, f"{found.kept:,}", *rates, auc, style=style)
