"""What another selection decides otherwise: counts by reason and class, and rows to look at (`--against`)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cleanctl.report.snapshot import Snapshot
from cleanctl.results import SelectionDiff
from cleanctl.selection.diff import compare, describe
from cleanctl.store import Split

REASONS, ROWS_A_REASON = 6, 10


@dataclass(frozen=True, kw_only=True)
class Changes:
    """diff: first is the selection compared with, second the report's. examples: (dropped by "first" or "second",
    reason, samples, rows) of the most frequent reasons. changed_N: bool."""

    diff: SelectionDiff
    examples: tuple[tuple[str, str, int, tuple[int, ...]], ...]
    changed_N: np.ndarray


def changes_of(split: Split, snapshot: Snapshot, against: str) -> Changes:
    """Raises StoreError where there is no such selection or it is of other rows."""
    first, second = split.selections.read(against), snapshot.selection
    found = compare(first, second)
    diff = describe(split, first, second, found, snapshot.classes)
    examples = []
    order_N = np.random.default_rng(0).random(len(snapshot))
    for place, (dropped_by, reason) in enumerate(found.reasons):
        rows = np.flatnonzero(found.reason_N == place)
        shown = rows[np.argsort(order_N[rows], kind="stable")][:ROWS_A_REASON]
        examples.append((dropped_by, reason, len(rows), tuple(shown.tolist())))
    examples.sort(key=lambda one: -one[2])
    return Changes(diff=diff, examples=tuple(examples[:REASONS]), changed_N=found.reason_N >= 0)
