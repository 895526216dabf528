"""What `train` returns."""

from __future__ import annotations

from dataclasses import dataclass

from cleanctl.results.result import Result


@dataclass(frozen=True, kw_only=True)
class TrainResult(Result):
    """The outcome of a run. Accuracies in [0, 1] on `test_split`; None where the store has no such split.

    The best epoch is the one that was most accurate on `chosen_on`, a validation split where there is one. Where that
    is the test split itself, best_top1 flatters (docs/method.md F.26); last_top1 never does. The counts of samples and
    `label_accuracy` are those of the last epoch (docs/recipes.md, "Metrics"); label_accuracy is the share of members
    whose label in training was true. It and every `_right` are None where no truth is known.
    """

    name: str
    folder: str
    method: str
    selection: str
    recipe: str
    network: str
    device: str
    epochs: int
    test_split: str | None
    last_top1: float | None
    best_top1: float | None
    best_epoch: int | None
    selected: int
    members: int
    absorbed: int
    relabelled: int
    label_accuracy: float | None
    images_per_second: float
    seconds: float
    chosen_on: str | None = None  # None in the result of an earlier version too
    seed: int | None = None  # None in the result of an earlier version, as the rest
    dropped: int | None = None
    members_right: int | None = None
    absorbed_right: int | None = None
    relabelled_right: int | None = None
    dropped_right: int | None = None


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Over `count` runs; deviation is that of a sample (n − 1), None for a single run."""

    mean: float
    deviation: float | None
    count: int


@dataclass(frozen=True, kw_only=True)
class SeedsResult(Result):
    """Runs that differ in their seed alone, in the order of `seeds`.

    spreads: last_top1, best_top1, label_accuracy and members of the runs; None where a run has no such number.
    """

    name: str
    seeds: tuple[int, ...]
    runs: tuple[TrainResult, ...]
    spreads: dict[str, Spread | None]
