"""What the report reads of a store, at one moment: a split's columns, one selection, the scores it was made from.

A split that is opened stays the version it was (`store.files.Pin`), whatever a writer does meanwhile; everything here
is read from that one. Nothing is written.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from cleanctl.errors import StoreError
from cleanctl.files.keys import Keys
from cleanctl.records import Status
from cleanctl.store import Split, Store
from cleanctl.store.standing import Standing, dataset_fingerprint, standing
from cleanctl.store.stored import StoredScore, StoredSelection


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """N rows of the split in store order, C classes.

    keys: N. label_N: int32, 0…C-1. status_N: uint8, see Status. truth_N: int32 or None, as in SplitManifest. digest_N:
    uint8 (N, 16), zero where a file was not read. reasons: failed row → why. selection: its arrays have length N.
    scores: scorer → the stored score that the selection was made from, where the store still has it. standing: what
    people decided of the labels as they are now.
    """

    path: str
    split: str
    classes: tuple[str, ...]
    source: dict[str, Any]
    encoder: dict[str, Any]
    prompts: dict[str, Any]
    fingerprint: str
    keys: Keys
    label_N: np.ndarray
    status_N: np.ndarray
    truth_N: np.ndarray | None
    digest_N: np.ndarray
    reasons: dict[int, str]
    selection: StoredSelection
    scores: dict[str, StoredScore]
    standing: Standing

    def __len__(self) -> int:
        return len(self.keys)

    @cached_property
    def ok_N(self) -> np.ndarray:
        """(N,) bool: readable, and known to the selection."""
        return (self.status_N == Status.OK) & (self.selection.suggested >= 0)

    @property
    def failed_N(self) -> np.ndarray:
        return self.status_N == Status.FAILED

    @property
    def config(self) -> dict[str, Any]:
        """Options that the selection was made with."""
        return dict(self.selection.attributes.get("config") or {})

    @property
    def summary(self) -> dict[str, Any]:
        """What `select` said of the selection (SelectionSummary as JSON)."""
        return dict(self.selection.attributes.get("summary") or {})


def take_snapshot(store: Store, split: Split, selection: str | None) -> Snapshot:
    """selection: a name, or None for the newest. Raises StoreError where there is none or it is of other rows."""
    chosen = _selection(split, selection)
    status_N, reasons = split.committed()
    if len(chosen.keep) != len(status_N):
        raise StoreError(
            f"The selection {chosen.name!r} has {len(chosen.keep):,} rows, split {split.name!r} has {len(status_N):,}.",
            do=f"Make it again with: cleanctl select --name {chosen.name}",
        )
    return Snapshot(
        path=str(store.path),
        split=split.name,
        classes=store.classes,
        source=store.source,
        encoder=store.encoder,
        prompts=store.text_attributes(),
        fingerprint=dataset_fingerprint(split),
        keys=split.keys(),
        label_N=split.label_N(),
        status_N=status_N,
        truth_N=_truth(split),
        digest_N=split.fingerprints().digest_N16,
        reasons=dict(sorted(reasons.items())),
        selection=chosen,
        scores=_scores(split, chosen),
        standing=standing(split, store.classes),
    )


def _selection(split: Split, name: str | None) -> StoredSelection:
    if name is None:
        name = next(reversed(split.selections.attributes()), None)
    if name is None:
        raise StoreError(
            f"Split {split.name!r} of {split.store_path} has no selection yet.", do="Make one with: cleanctl select"
        )
    return split.selections.read(name)


def _truth(split: Split) -> np.ndarray | None:
    """None also where no row's truth is known."""
    truth_N = split.truth_N()
    return truth_N if truth_N is not None and (truth_N != -1).any() else None


def _scores(split: Split, chosen: StoredSelection) -> dict[str, StoredScore]:
    """Those that were computed from the labels that the selection was."""
    found = {}
    for title, name in (chosen.attributes.get("scores") or {}).items():
        with suppress(StoreError):  # it is gone or damaged
            score = split.scores.read(name)
            labels = (score.attributes.get("basis") or {}).get("labels")
            if not score.stale and labels == chosen.attributes.get("labels"):
                found[str(title)] = score
    return found
