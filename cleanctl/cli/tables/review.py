"""What the verbs of `review` tell."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.markup import escape
from rich.table import Table

from cleanctl.cli.tables.shared import new_table
from cleanctl.results import Conflicting, ReviewApplied, ReviewList, ReviewRemoved, ReviewServed, VerdictLine

SHOWN = 20  # contradictions; --json has all
NAMELESS = "(no name)"


def applied_lines(record: ReviewApplied) -> list[Any]:
    """What was added, what was left out and why, and what contradicts."""
    shown: list[Any] = []
    if record.contradictions:
        shown.append(_contradictions(record.contradictions))
        if record.prefer:
            shown.append(f"They are settled: --prefer {escape(record.prefer)}.")
        elif record.dry_run:
            shown.append("Nothing is stored until they are settled: --prefer latest, --prefer stored or --prefer FILE.")
    if record.left_out:
        shown.append(_verdicts("Left out", record.left_out, last="why"))
    left = record.gone + record.changed + record.relabelled
    counts = f"keep {record.keep:,}, drop {record.drop:,}, relabel {record.relabel:,}, skip {record.skip:,}"
    said = f"{'Would add' if record.dry_run else 'Added'} {record.added:,} of {record.read:,} verdicts on split "
    said += f"{escape(record.split)} ({counts})"
    said += f"; {record.known:,} were there" if record.known else ""
    said += f"; {record.replaced:,} replace what the same person said before" if record.replaced else ""
    said += f"; {left:,} do not fit the store and were left out" if left else ""
    return [*shown, f"{said}. Next: cleanctl select"]


def served_lines(record: ReviewServed) -> list[Any]:
    following = " Next: cleanctl select" if record.taken else ""
    return [f"{record.taken:,} verdicts on split {escape(record.split)} were stored.{following}"]


def list_lines(record: ReviewList) -> list[Any]:
    if not record.total and not record.shown:
        return [f"Nobody decided anything of split {escape(record.split)} yet. See: cleanctl review --help"]
    shown: list[Any] = []
    if record.shown:
        shown.append(_verdicts("Verdicts", record.shown))
    if record.contradictions:
        shown.append(_contradictions(record.contradictions))
        shown.append("The latest counts. Settle them with: cleanctl review apply FILE --prefer …")
    people = ", ".join(f"{escape(name) if name else NAMELESS} {count:,}" for name, count in record.people.items())
    held = record.keep + record.drop + record.relabel
    shown.append(
        f"{held:,} verdicts on split {escape(record.split)} hold (keep {record.keep:,}, drop {record.drop:,}, relabel "
        f"{record.relabel:,}), {record.skip:,} are undecided. By: {people or 'nobody'}."
    )
    reasons = ((record.changed, "other content"), (record.relabelled, "another label"), (record.gone, "no such image"))
    if idle := ", ".join(f"{count:,} {why} now" for count, why in reasons if count):
        shown.append(f"Not in force: {idle}.")
    return [*shown, f"Written: {escape(record.out)}"] if record.out else shown


def removed_lines(record: ReviewRemoved) -> list[Any]:
    unknown = f"; there is none on {', '.join(map(escape, record.unknown[:5]))}" if record.unknown else ""
    return [f"Took back the verdicts on {record.removed:,} images of split {escape(record.split)}{unknown}."]


def _verdicts(title: str, lines: Iterable[VerdictLine], *, last: str = "") -> Table:
    table = new_table(title, "image", "given", "verdict", "by", "at", last)
    for column in table.columns[1:]:
        column.justify, column.no_wrap, column.overflow = "left", False, "fold"
    for one in lines:
        table.add_row(*(escape(text) for text in (one.key, one.given, _says(one), one.by or "–", one.at, one.holds)))
    return table


def _contradictions(found: tuple[Conflicting, ...]) -> Table:
    more = f" ({SHOWN} of {len(found):,}; --json has all)" if len(found) > SHOWN else ""
    table = new_table(f"Verdicts that contradict each other{more}", "image", "verdict", "by", "at", "from")
    for column in table.columns[1:]:
        column.justify, column.no_wrap, column.overflow = "left", False, "fold"
    for one in found[:SHOWN]:
        for place, side in enumerate(one.sides):
            key = one.key if place == 0 else ""
            table.add_row(*(escape(text) for text in (key, _says(side), side.by or "–", side.at, side.source)))
    return table


def _says(one: VerdictLine) -> str:
    return f"{one.verdict} as {one.label}" if one.label else one.verdict
