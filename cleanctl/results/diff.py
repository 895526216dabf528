"""What `diff` returns."""

from __future__ import annotations

from dataclasses import dataclass

from cleanctl.results.result import Result


@dataclass(frozen=True, kw_only=True)
class DiffReason:
    """Why one selection drops what the other keeps. dropped_by: "first" or "second". samples: how many, with examples.

    Every sample that differs has exactly one reason, so the samples of all reasons add up to those that differ.
    """

    dropped_by: str
    reason: str
    samples: int
    examples: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class DiffClass:
    """Samples of one class by their given label that only the first, only the second selection keeps."""

    name: str
    only_first: int
    only_second: int


@dataclass(frozen=True, kw_only=True)
class SelectionDiff(Result):
    """count: rows of the split; both + only_first + only_second + neither = count."""

    first: str
    second: str
    split: str
    count: int
    both: int
    only_first: int
    only_second: int
    neither: int
    reasons: tuple[DiffReason, ...]
    classes: tuple[DiffClass, ...]
    notes: tuple[str, ...]
    out: str | None = None
