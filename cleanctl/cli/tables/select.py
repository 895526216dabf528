"""What `select` tells."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

from rich.markup import escape
from rich.table import Table

from cleanctl.cli.tables.shared import SHOWN_CLASSES, Summary, new_table, percent
from cleanctl.results import ClassSummary, Expected, Reviewed, SelectionSummary

SHOWN_FIRST = 5


def selection_tables(record: SelectionSummary) -> list[Any]:
    """Per class what was kept, per rule how much, and which classes are taken for one another."""
    shown: list[Any] = [_class_table(record), _rule_table(record)]
    if len(record.rules) > 1:
        shown.append(_votes_table(record))
    if pairs := [pair for pair in record.confused if pair.samples >= 1][:5]:
        table = new_table("Most confused", "given label", "likely label", "samples")
        table.columns[1].justify = "left"
        for pair in pairs:
            table.add_row(escape(pair.given), escape(pair.likely), f"≈ {pair.samples:,.0f}")
        shown.append(table)
    if record.expected is not None:
        shown += _expected_lines(record.expected)
    for score in record.scores:
        shown += _recall_lines(score.ran)
    for deviation in record.deviations:
        shown.append(f"[dim]paper-code: {escape(deviation)}[/dim]")
    if record.review is not None:
        shown += _review_lines(record.review)
    return [*shown, _summary(record)]


def _summary(record: SelectionSummary) -> Summary:
    failed = f"; {record.failed:,} unreadable images are not kept" if record.failed else ""
    share = percent(record.kept / max(record.count, 1))
    named = f"Selection [bold]{escape(record.name)}[/bold] keeps {share} of {escape(record.split)}{failed}."
    written = (f"Table: {escape(record.out)}",) if record.out else ()
    split = "" if record.split == "train" else f" --split {shlex.quote(record.split)}"
    return Summary(
        (escape(record.sentence), named, *written), (f"cleanctl report --open{split}", f"cleanctl train{split}")
    )


def _expected_lines(expected: Expected) -> list[str]:
    """What joint expects of the selection, and what that assumes."""
    between = ""
    if expected.precision_low is not None:
        between = f" (95 % interval {percent(expected.precision_low)} to {percent(expected.precision_high)})"
    lines = [
        f"Expected: {percent(expected.precision)}{between} of the kept labels are right; they are "
        f"{percent(expected.recall)} of the right ones.",
        f"{percent(expected.noise)} of all labels are wrong. This assumes: {expected.assumes}",
    ]
    if expected.class_conditional is False and not expected.verdicts:
        lines.append("[bold]The labels do not tell which[/bold]: do not rely on these numbers (see the warning).")
    if expected.verdicts:
        lines.append(f"Recalibrated with {expected.verdicts:,} verdicts.")
    if expected.budget:
        wrong = f"{expected.budget_wrong:,.0f}"
        first = ", ".join(escape(key) for key in expected.look_first[:SHOWN_FIRST])
        lines.append(f"Look first at these {expected.budget:,} labels, of which ≈ {wrong} are wrong: {first}, …")
        lines.append("The column review of --out numbers them all.")
    return lines


def _review_lines(found: Reviewed) -> list[str]:
    """What people decided, and how much of it the strategy had decided otherwise."""
    count = found.keep + found.drop + found.relabel
    if not count:
        return []
    words = f"keep {found.keep:,}, drop {found.drop:,}, relabel {found.relabel:,}"
    return [
        f"{count:,} verdicts of people are obeyed ({words}):",
        f"     {found.newly_kept:,} kept that the strategy drops, {found.newly_dropped:,} dropped that it keeps.",
    ]


def _votes_table(record: SelectionSummary) -> Table:
    table = new_table("Rules that agree", "rules that keep a sample", "samples", "share")
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
        f"     It visited {ran['probes']:,} of {ran['cells']:,} cells; --knn-recall and --knn-probes set how many.",
    ]


def _class_table(record: SelectionSummary) -> Table:
    table = new_table("Kept by class", "class", "samples", "kept", "share", "est. noise")
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
    table = new_table("Kept by rule", "rule", "kept", "share")
    for rule in record.rules:
        table.add_row(rule.rule, f"{rule.kept:,}", percent(rule.kept / max(record.count, 1)))
    return table
