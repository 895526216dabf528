"""What `eval` tells."""

from __future__ import annotations

from typing import Any

from rich.markup import escape
from rich.table import Table

from cleanctl.cli.tables.shared import decimal, new_table, percent
from cleanctl.results import Detection, EvalReport, SelectionQuality


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
        table = new_table(title, "run", "split", "top-1", "top-5")
        table.columns[1].justify = "left"
        for run in record.runs:
            name = f"{escape(run.run)}, {run.checkpoint} (epoch {run.epoch})"
            split = escape(run.split) + ("*" if run.chosen_on == run.split else "")
            table.add_row(name, split, percent(run.accuracy.top1), percent(run.accuracy.top5))
        shown.append(table)
    return shown or ["Nothing can be measured yet; the notes above say what is missing."]


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
