"""A verb's result → rich tables and lines that fit 80 columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.markup import escape
from rich.table import Table

from cleanctl.cli.console import duration
from cleanctl.results import (
    ClassSummary,
    Detection,
    EmbedSummary,
    EvalReport,
    FailureReport,
    SelectionQuality,
    SelectionSummary,
    TrainResult,
)

SHOWN_CLASSES = 40


def _table(title: str, *columns: str) -> Table:
    """The first column is text on the left, the others are numbers on the right."""
    table = Table(title=title, title_justify="left", title_style="bold", header_style="dim", box=None, pad_edge=False)
    for place, name in enumerate(columns):
        table.add_column(name, justify="right" if place else "left", overflow="fold", no_wrap=place > 0)
    return table


def percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"


def decimal(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def selection_tables(record: SelectionSummary) -> list[Any]:
    """Per class what was kept, per rule how much, and which classes are taken for one another."""
    shown: list[Any] = [_class_table(record), _rule_table(record)]
    if len(record.rules) > 1:
        shown.append(_votes_table(record))
    if pairs := [pair for pair in record.confused if pair.samples >= 1][:5]:
        table = _table("Most confused", "given label", "likely label", "samples")
        table.columns[1].justify = "left"
        for pair in pairs:
            table.add_row(escape(pair.given), escape(pair.likely), f"≈ {pair.samples:,.0f}")
        shown.append(table)
    for score in record.scores:
        shown += _recall_lines(score.ran)
    for deviation in record.deviations:
        shown.append(f"[dim]paper-code: {escape(deviation)}[/dim]")
    failed = f"; {record.failed:,} unreadable images are not kept" if record.failed else ""
    shown.append(
        f"Selection [bold]{escape(record.name)}[/bold] keeps {record.kept:,} of {record.count:,} samples "
        f"({percent(record.kept / max(record.count, 1))}){failed}. Next: cleanctl train"
    )
    return shown


def _votes_table(record: SelectionSummary) -> Table:
    table = _table("Rules that agree", "rules that keep a sample", "samples", "share")
    for votes in reversed(range(len(record.votes))):
        count = record.votes[votes]
        table.add_row(f"{votes} of {len(record.rules)}", f"{count:,}", percent(count / max(record.count, 1)))
    return table


def _recall_lines(ran: dict[str, Any]) -> list[str]:
    """What an approximate kNN search missed, as measured."""
    if "recall" not in ran:
        return []
    return [
        f"knn: IVF found {percent(ran['recall'])} of the true neighbours of {ran['recall_rows']:,} images.",
        f"     It visited {ran['probes']:,} of {ran['cells']:,} cells; --knn-probes sets how many.",
    ]


def _class_table(record: SelectionSummary) -> Table:
    table = _table("Kept by class", "class", "samples", "kept", "share", "est. noise")
    classes: Sequence[ClassSummary] = record.classes
    many = len(classes) > SHOWN_CLASSES
    if many:  # the classes that lose most are those to look at
        classes = sorted(classes, key=lambda one: one.share)[:SHOWN_CLASSES]
        table.title = f"Kept by class (the {SHOWN_CLASSES} of {len(record.classes)} that keep least; --json has all)"
    for one in classes:
        added = f" (+{one.topped_up:,})" if one.topped_up else ""
        share = percent(one.share) if one.count else "–"
        kept = f"{one.kept:,}{added}"
        table.add_row(escape(one.name), f"{one.count:,}", kept, share, percent(one.noise))
    if not many:
        table.add_section()
        share = percent(record.kept / max(record.count, 1))
        kept = f"{record.kept:,}"
        table.add_row("all", f"{record.count:,}", kept, share, percent(record.noise), style="bold")
    return table


def _rule_table(record: SelectionSummary) -> Table:
    table = _table("Kept by rule", "rule", "kept", "share")
    for rule in record.rules:
        table.add_row(rule.rule, f"{rule.kept:,}", percent(rule.kept / max(record.count, 1)))
    return table


def train_table(record: TrainResult) -> list[Any]:
    """What the run ended with, and where it lies."""
    table = _table(f"Run {escape(record.name)}", "", "")
    table.show_header = False
    rows = [
        ("network", record.network),
        ("recipe, epochs", f"{record.recipe}, {record.epochs}"),
        ("selected", f"{record.selected:,}"),
        ("members at the end", f"{record.members:,}"),
        ("  absorbed, relabelled", f"{record.absorbed:,}, {record.relabelled:,}"),
        ("  with the true label", percent(record.label_accuracy)),
        ("images a second", f"{record.images_per_second:,.0f}"),
    ]
    if record.test_split is not None:
        rows.append((f"top-1 on {record.test_split}, last epoch", percent(record.last_top1)))
        seen = (
            "looked at the test" if record.chosen_on in (None, record.test_split) else f"chosen on {record.chosen_on}"
        )
        rows.append((f"  best epoch ({record.best_epoch}; {seen})", percent(record.best_top1)))
    for name, value in rows:
        if value != "–":
            table.add_row(name, str(value))
    return [table, f"Checkpoints and metrics: {escape(record.folder)}   Next: cleanctl eval"]


def embed_table(record: EmbedSummary, *, following: str) -> list[Any]:
    """Per split what came in and what failed, with the first reasons; and what to type next."""
    table = _table(_embed_title(record.model), "split", "images", "ok", "failed", "new", "images/s")
    for split in record.splits:
        speed = split.images_per_second
        table.add_row(
            escape(split.split),
            *(f"{count:,}" for count in (split.images, split.ok, split.failed, split.embedded)),
            "–" if speed is None else f"{speed:,.0f}",
        )
    shown: list[Any] = [table]
    failures = [pair for split in record.splits for pair in split.failures]
    if failures:
        reasons = _table("Failed (a few; they are kept out of every selection)", "image", "reason")
        reasons.columns[1].justify = "left"
        reasons.columns[1].no_wrap = False
        for key, reason in failures[:5]:
            reasons.add_row(escape(key), escape(reason))
        shown.append(reasons)
    took = f"   ({duration(record.seconds)})" if record.seconds else ""
    shown.append(f"Store: {escape(str(record.store))}{took}   Next: {following}")
    return shown


def failure_tables(record: FailureReport) -> list[Any]:
    """Failures by reason and first bytes, with an example each, and where the whole list is."""
    if not record.count:
        return [f"None of the {record.images:,} images of {escape(str(record.store))} failed."]
    table = _table("Failed images", "reason", "first bytes", "images", "for example")
    for column, left in enumerate((True, True, False, True)):
        table.columns[column].justify = "left" if left else "right"
        table.columns[column].no_wrap = not left
    for kind in record.kinds()[:SHOWN_CLASSES]:
        table.add_row(
            *(escape(kind.reason), escape(kind.first_bytes)),
            *(f"{kind.images:,}", escape(kind.example)),
        )
    shown: list[Any] = [table]
    shown.append(f"{record.count:,} of {record.images:,} images failed. All of them, with reasons:")
    shown += [f"  {escape(str(path))}" for path in record.tables.values()]
    return shown


def eval_tables(record: EvalReport) -> list[Any]:
    """Each number that could be had; the notes (on stderr) say why another could not."""
    shown: list[Any] = []
    if quality := record.selection:
        shown.append(_quality_table(quality))
    if record.zero_shot:
        table = _table("Zero-shot accuracy (prompts pooled; nearest prompt)", "split", "images", "top-1", "nearest")
        for zero in record.zero_shot:
            against = f"{escape(zero.split)}, against {zero.against}"
            table.add_row(against, f"{zero.pooled.count:,}", percent(zero.pooled.top1), percent(zero.nearest.top1))
        shown.append(table)
    if record.runs:
        flatters = any(run.chosen_on == run.split for run in record.runs)
        title = f"Trained networks{' (* the epoch was chosen on this split, which flatters)' if flatters else ''}"
        table = _table(title, "run", "split", "top-1", "top-5")
        table.columns[1].justify = "left"
        for run in record.runs:
            name = f"{escape(run.run)}, {run.checkpoint} (epoch {run.epoch})"
            split = escape(run.split) + ("*" if run.chosen_on == run.split else "")
            table.add_row(name, split, percent(run.accuracy.top1), percent(run.accuracy.top5))
        shown.append(table)
    return shown or ["Nothing can be measured yet; the notes above say what is missing."]


def _quality_table(quality: SelectionQuality) -> Table:
    title = f"Selection against the truth ({percent(quality.noise)} of the labels are wrong)"
    table = _table(title, "rule", "kept", "precision", "recall", "F1", "ROC-AUC")
    for rule in quality.rules:
        _add_found(table, rule.rule, rule.found, decimal(rule.auc))
    table.add_section()
    _add_found(table, escape(quality.name), quality.found, "", style="bold")
    return table


def _add_found(table: Table, name: str, found: Detection, auc: str, style: str | None = None) -> None:
    rates = (decimal(rate) for rate in (found.precision, found.recall, found.f1))
    table.add_row(name, f"{found.kept:,}", *rates, auc, style=style)


def _embed_title(model: str) -> str:
    return f"I{escape(model[1:])}" if model.startswith("imported from") else f"Embedded with {escape(model)}"
