"""Which rows of a store's splits a run uses: those it trains on, with labels and selection, and those it tests on."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np

from cleanctl.config import TrainConfig
from cleanctl.errors import StoreError
from cleanctl.records import KNOWN_WRONG
from cleanctl.store import Split, Store

VALIDATION_SPLITS = ("val", "validation")
TEST_SPLITS = ("test", *VALIDATION_SPLITS)


@dataclass(frozen=True, kw_only=True)
class TrainingPool:
    """Who can take part: row_M rows of the split that are OK, their labels, truth as in SplitManifest, the selection.

    preset: the recipe whose thresholds the selection was made with, a name or a path; None without one.
    """

    row_M: np.ndarray
    label_M: np.ndarray
    truth_M: np.ndarray | None
    selected_M: np.ndarray
    selection: str
    preset: str | None = None

    def fingerprint(self) -> str:
        digest = hashlib.sha256(self.selected_M.tobytes())
        digest.update(self.label_M.astype(np.int32).tobytes())
        return digest.hexdigest()[:16]


def find_pool(store: Store, config: TrainConfig) -> TrainingPool:
    """The readable rows of the split and which of them the selection keeps."""
    split = store.split(config.split)
    split.require_complete()
    row_M = split.ok_rows()
    name, keep_N, preset = read_selection(split, config.selection)
    truth_N = split.truth_N()
    return TrainingPool(
        row_M=row_M,
        label_M=split.label_N()[row_M],
        truth_M=None if truth_N is None else truth_N[row_M],
        selected_M=keep_N[row_M].astype(bool),
        selection=name,
        preset=preset,
    )


def read_selection(split: Split, wanted: str | None) -> tuple[str, np.ndarray, str | None]:
    """Name, keep_N (bool) and preset of a stored selection, the newest for None; "all" keeps every row.

    Raises StoreError if there is none, if it is older than the labels, or if it keeps nothing.
    """
    if wanted == "all":
        return "all", np.ones(split.num_rows, bool), None
    stored = split.results("selections")
    if not stored:
        raise StoreError(
            f"Split {split.name!r} of {split.store_path} has no selection yet.",
            so="Training does not know which labels to trust.",
            do="Make one with: cleanctl select   (or train on every label with --selection all).",
        )
    name = wanted if wanted is not None else list(stored)[-1]
    result = split.read_result("selections", name)
    if result.attributes.get("stale"):
        raise StoreError(
            f"The selection {name!r} was made before images or labels of {split.store_path} changed.",
            do=f"Make it anew with: cleanctl select --name {name}",
        )
    keep_N = np.asarray(result.arrays["keep"]).astype(bool)
    if not keep_N.any():
        raise StoreError(
            f"The selection {name!r} keeps no sample.",
            do="Make another with lower thresholds: cleanctl select --theta-gmm … --theta-consistency …",
        )
    preset = (result.attributes.get("config") or {}).get("preset")
    return name, keep_N, preset


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
