"""What `conflicts` tells."""

from __future__ import annotations

from typing import Any

from rich.markup import escape

from cleanctl.cli.tables.shared import new_table
from cleanctl.results import ConflictsSummary, LargestGroup

SHOWN_LABELS = 3
WORDS = {
    "exact": "the same bytes",
    "near": "the same picture, saved, scaled or cut anew",
    "label": "copies with different labels",
    "placeholder": "placeholders: one picture under many labels",
}


def conflicts_tables(record: ConflictsSummary) -> list[Any]:
    """How many of each kind, the largest groups, and what can be done about them."""
    counts = new_table("Conflicts", "what", "groups", "images")
    for one in record.counts:
        words = WORDS.get(one.kind) or f"leaks: also in split {escape(one.kind.removeprefix('leak:'))}"
        counts.add_row(words, f"{one.groups:,}", f"{one.images:,}")
    said = (
        f"{record.groups:,} groups among {record.count:,} images of {escape(record.split)}; {record.duplicates:,} "
        f"images are copies that could go. Compared by {record.compared_by}; {record.candidates:,} candidates by "
        f"{record.search}."
    )
    if not record.groups:
        return [counts, said]
    largest = new_table("Largest groups", "centre", "images", "kinds", "labels")
    for column in largest.columns[2:]:
        column.justify, column.no_wrap = "left", False
    for group in record.largest:
        largest.add_row(escape(group.centre), f"{group.size:,}", escape(", ".join(group.kinds)), _labels(group))
    return [counts, largest, said] + ([f"All of them: {escape(record.out)}"] if record.out else [])


def _labels(group: LargestGroup) -> str:
    shown = [f"{escape(name)} {count:,}" for name, count in list(group.labels.items())[:SHOWN_LABELS]]
    return ", ".join(shown) + (" …" if len(group.labels) > SHOWN_LABELS else "")
