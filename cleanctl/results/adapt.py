"""What `adapt` returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cleanctl.results.evaluate import Detection
from cleanctl.results.result import Result


@dataclass(frozen=True, kw_only=True)
class AdaptResult(Result):
    """A detector and what it says of one split.

    epochs, parameters (numbers learnt) and seconds of learning are 0 where a detector was applied. kept: rows of
    `count` that `detector.dual` keeps. suggested_other: rows whose most probable class is not the given one. found:
    how well right labels were found, None where no truth is known.
    """

    name: str
    folder: str
    split: str
    tune: str
    preset: str
    device: str
    epochs: int
    parameters: int
    count: int
    kept: int
    suggested_other: int
    found: Detection | None
    seconds: float

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> AdaptResult:
        found = values.get("found")
        return cls(**{**values, "found": None if found is None else Detection(**found)})
