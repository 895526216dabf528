"""What `review sample` and `audit` tell."""

from __future__ import annotations

import shlex
from typing import Any

from rich.markup import escape

from cleanctl.cli.tables.shared import Summary, decimal, new_table, percent
from cleanctl.results import AuditReport, Estimate, ReviewSample


def sample_tables(record: ReviewSample) -> list[Any]:
    """The strata, how many labels to look at in each, and where."""
    table = new_table(f"Strata by {escape(record.score)}", "labels", "score", "in all", "to look at")
    for one in record.strata:
        between = f"{decimal(one.low)} to {decimal(one.high)}"
        table.add_row("kept" if one.kept else "dropped", between, f"{one.size:,}", f"{one.looks:,}")
    known = f" People decided {record.known:,} of them already." if record.known else ""
    said = (
        f"Drew {record.size:,} of the {record.labels:,} labels of split {escape(record.split)}, to check the selection "
        f"{escape(record.selection)} (seed {record.seed}).{known}"
    )
    page = record.out.lower().endswith(".csv")
    look = "Fill in the column verdict of" if page else "Look at them in the order given, and save the verdicts, in"
    audit = "cleanctl audit" if record.name == "audit" else f"cleanctl audit --sample {shlex.quote(record.name)}"
    file = shlex.quote(record.out) if page else "FILE"
    return [table, Summary((said, f"{look} {escape(record.out)}"), (f"cleanctl review apply {file}", audit))]


def audit_tables(record: AuditReport) -> list[Any]:
    """The three numbers in words, with their intervals, from how many looks, and what that assumes."""
    table = new_table("What the looks found", "labels", "in all", "right", "wrong", "undecided")
    for one in record.strata:
        counts = (one.size, one.right, one.wrong, one.undecided)
        table.add_row("kept" if one.kept else "dropped", *(f"{count:,}" for count in counts))
    name = escape(record.selection)
    said = [f"Of {record.labels:,} labels {_told(record.noise, record)} are wrong."]
    if record.precision is not None:
        said.append(
            f"Of the {record.kept:,} that [bold]{name}[/bold] keeps {_told(record.precision, record)} are right."
        )
    said.append(f"It keeps {_told(record.recall, record)} of the right labels.")
    looks = f"{record.looks:,} looks: {record.right:,} right, {record.wrong:,} wrong, {record.undecided:,} undecided"
    waiting = f"; {record.waiting:,} drawn labels wait for a look" if record.waiting else ""
    said.append(f"Estimated from {looks}{waiting}. This assumes: {record.assumes}")
    if record.undecided:
        said.append("Undecided labels count against each end of an interval.")
    if record.without_verdicts:
        said.append(
            f"{name} is judged without people's verdicts, which changed {record.without_verdicts:,} labels in it."
        )
    following = ("cleanctl select --strategy joint", "cleanctl train")
    return [table, Summary(tuple(said), following)]


def _told(one: Estimate, record: AuditReport) -> str:
    level = f"{100 * record.confidence:g} %"
    value = "an unknown share" if one.value is None else f"[bold]{percent(one.value)}[/bold]"
    return f"{value} ({level} interval: {100 * one.low:.1f} to {percent(one.high)})"
