"""What `reproduce` returns."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from statistics import mean, stdev
from typing import Any, Literal

from cleanctl.results.result import Result

Measure = Literal["top1", "top5", "zero-shot", "f1", "auc", "auc-scaled"]
State = Literal["measured", "ready", "missing", "not-run", "failed"]


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Values in [0, 1], one a seed. last: after the last epoch, or of what has no epochs. best: of the best epoch,
    empty without epochs. best_on_test: the best epoch was chosen on the split that is reported, which flatters.
    """

    seeds: tuple[int, ...] = ()
    last: tuple[float, ...] = ()
    best: tuple[float, ...] = ()
    best_on_test: bool = False


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One value of a published table. published, spread: in [0, 1], None where the table has none.

    state: measured here; ready to run (with --dry-run); missing something; not run by cleanctl; failed. reason: what is
    missing, why it is not run, or the error.
    """

    row: str
    row_title: str
    column: str
    column_title: str
    measure: Measure
    split: str
    published: float | None
    spread: float | None
    state: State
    reason: str = ""
    measured: Measured | None = None

    @property
    def name(self) -> str:
        return f"{self.row}/{self.column}"

    def to_json(self) -> dict[str, Any]:
        """The fields, and mean and deviation (n − 1, None for one seed) of what was measured."""
        values = asdict(self)
        if self.measured is not None:
            for which in ("last", "best"):
                values["measured"] |= dict(
                    zip((f"{which}_mean", f"{which}_deviation"), statistics(self.measured, which))
                )
        return values


def statistics(measured: Measured, which: str) -> tuple[float | None, float | None]:
    """(mean, deviation of a sample) of `last` or `best` over the seeds; None where there are too few values."""
    values: tuple[float, ...] = getattr(measured, which)
    return (mean(values) if values else None), (stdev(values) if len(values) > 1 else None)


@dataclass(frozen=True, kw_only=True)
class ReproduceReport(Result):
    """files: pictures and tables that were written."""

    table: str
    title: str
    source: str
    scale: str
    notes: tuple[str, ...]
    cells: tuple[Cell, ...]
    files: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "cells": [cell.to_json() for cell in self.cells]}
