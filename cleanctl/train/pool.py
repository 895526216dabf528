"""Which rows of a store's splits a run uses: those it trains on, with labels and selection, and those it tests on."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from cleanctl.config import TrainConfig
from cleanctl.errors import StoreError
from cleanctl.progress import SILENT, Progress
from cleanctl.records import KNOWN_WRONG, Status
from cleanctl.selection.review import Obeyed, Verdicts, obey
from cleanctl.store import Split, Store
from cleanctl.store.standing import DROP, RELABEL, UNDECIDED, Standing, standing

VALIDATION_SPLITS = ("val", "validation")
TEST_SPLITS = ("test", *VALIDATION_SPLITS)


@dataclass(frozen=True, kw_only=True)
class TrainingPool:
    """Who can take part: row_M rows of the split that are OK and that no person dropped, their labels, truth as in
    SplitManifest, the selection.

    label_M: with the labels that people gave. given_M: as the split has them; None where nobody gave another. fixed_M:
    bool, people say that label_M is right; None where nobody decided. preset: the recipe whose thresholds the selection
    was made with, a name or a path; None without one.
    """

    row_M: np.ndarray
    label_M: np.ndarray
    truth_M: np.ndarray | None
    selected_M: np.ndarray
    selection: str
    preset: str | None = None
    given_M: np.ndarray | None = None
    fixed_M: np.ndarray | None = None

    @property
    def as_given_M(self) -> np.ndarray:
        return self.label_M if self.given_M is None else self.given_M

    def fingerprint(self) -> str:
        """Of what takes part. A row that a person dropped is as one that cannot be read."""
        digest = hashlib.sha256(self.selected_M.tobytes())
        digest.update(self.label_M.astype(np.int32).tobytes())
        return digest.hexdigest()[:16]


def find_pool(store: Store, config: TrainConfig, *, progress: Progress = SILENT) -> TrainingPool:
    """The readable rows of the split and which of them the selection keeps, people's verdicts obeyed.

    Raises StoreError if there is no selection, if it is older than the labels, or if it keeps nothing.
    """
    split = store.split(config.split)
    split.require_complete()
    pool, obeyed = pool_of(split, store.classes, config.selection, ignore_review=config.ignore_review)
    obeyed.note(pool.selection, progress)
    if not pool.selected_M.any():
        raise StoreError(
            f"The selection {pool.selection!r} keeps no sample.",
            do="Make another with lower thresholds: cleanctl select --theta-gmm … --theta-consistency …",
        )
    return pool


def pool_of(
    split: Split, classes: Sequence[str], wanted: str | None, *, ignore_review: bool
) -> tuple[TrainingPool, Obeyed]:
    """wanted: the selection's name, None for the newest; "all" keeps every row that no person dropped."""
    ok_N = split.status_N() == Status.OK
    name, obeyed, preset = _read_selection(split, classes, wanted, ok_N, ignore_review=ignore_review)
    verdicts = obeyed.verdicts
    row_M = np.flatnonzero(ok_N & (verdicts.code_N != DROP))
    mine = verdicts.at(row_M)
    truth_N, given_M = split.truth_N(), split.label_N()[row_M]
    pool = TrainingPool(
        row_M=row_M,
        label_M=mine.labels(given_M),
        truth_M=None if truth_N is None else truth_N[row_M],
        selected_M=obeyed.keep_N[row_M].astype(bool),
        selection=name,
        preset=preset,
        given_M=given_M if (mine.code_N == RELABEL).any() else None,
        fixed_M=mine.code_N != UNDECIDED if len(mine) else None,
    )
    return pool, obeyed


def _read_selection(
    split: Split, classes: Sequence[str], wanted: str | None, ok_N: np.ndarray, *, ignore_review: bool
) -> tuple[str, Obeyed, str | None]:
    """Name and preset of a stored selection, and what it keeps. Raises StoreError."""
    if wanted == "all":
        found = Standing() if ignore_review else standing(split, classes)
        verdicts = Verdicts.of(found, ok_N)
        return "all", Obeyed(keep_N=verdicts.keep(np.ones(len(ok_N), bool)), verdicts=verdicts, newer=0), None
    stored = split.results("selections")
    if not stored:
        raise StoreError(
            f"Split {split.name!r} of {split.store_path} has no selection yet.",
            so="Training does not know which labels to trust.",
            do="Make one with: cleanctl select   (or train on every label with --selection all).",
        )
    name = wanted if wanted is not None else list(stored)[-1]
    selection = split.selections.read(name)
    if selection.stale:
        raise StoreError(
            f"The selection {name!r} was made before images or labels of {split.store_path} changed.",
            do=f"Make it anew with: cleanctl select --name {name}",
        )
    preset = (selection.attributes.get("config") or {}).get("preset")
    return name, obey(split, selection, classes, ignore_review=ignore_review), preset


@dataclass(frozen=True, kw_only=True)
class TestedSplits:
    """chosen_on: whose accuracy picks the best epoch. test: whose accuracy is reported. Either is None without one."""

    chosen_on: str | None
    test: str | None

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(name for name in (self.chosen_on, self.test) if name is not None))


def find_tests(names: Collection[str]) -> TestedSplits:
    """The best epoch is picked on a validation split where there is one, so that `test` stays unseen."""
    validation = next((name for name in VALIDATION_SPLITS if name in names), None)
    test = "test" if "test" in names else validation
    return TestedSplits(chosen_on=validation or test, test=test)


def known_labels(split: Split) -> tuple[np.ndarray, str]:
    """label_N to test against, and "truth" or "labels": the truth where the split has it, else the labels as given.

    Below 0 where a row's true class is unknown: such rows are left out of every test.
    """
    truth_N = split.truth_N()
    return (split.label_N(), "labels") if truth_N is None else (truth_N, "truth")


def judged(label_B: np.ndarray, given_B: np.ndarray, truth_B: np.ndarray) -> np.ndarray:
    """bool (B,): is it known whether the label is the true one? A label that was known to be wrong as it was given
    stays so until it is another: then nobody knows."""
    return (truth_B >= 0) | ((truth_B == KNOWN_WRONG) & (label_B == given_B))
