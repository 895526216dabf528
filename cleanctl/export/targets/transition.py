"""joint's transition matrix as a table: how the labels of each true class came out wrong."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cleanctl.errors import StoreError
from cleanctl.export.chosen import Chosen
from cleanctl.export.targets.target import Target, Written
from cleanctl.progress import Progress

COLUMNS = ("true_class", "given_class", "true_name", "given_name", "samples", "rate")


class TransitionMatrix(Target):
    """A CSV of the pairs that joint stores: numbers and names of both classes, expected samples, and T[true, given], by
    falling samples. It is fitted to all labels of the split, whatever was chosen."""

    def write(self, place: Path, chosen: Chosen, progress: Progress) -> Written:
        pairs, name = _pairs(chosen), chosen.classes
        with place.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(COLUMNS)
            columns = (pairs["true"], pairs["given"], pairs["samples"], pairs["rate"])
            for true, given, samples, rate in zip(*columns, strict=True):
                writer.writerow((true, given, name[true], name[given], samples, rate))
        return Written(examples=tuple(self.names(chosen)))

    def names(self, chosen: Chosen) -> Sequence[str]:
        pairs = _pairs(chosen)
        return [
            f"{chosen.classes[true]} → {chosen.classes[given]}" for true, given in zip(pairs["true"], pairs["given"])
        ]


def _pairs(chosen: Chosen) -> Mapping[str, Any]:
    if chosen.transition is None:
        raise StoreError(
            f"The selection {chosen.selection!r} has no transition matrix: joint was not its evidence.",
            do="Make one with: cleanctl select --strategy joint",
        )
    return chosen.transition
