"""The groups that `cleanctl conflicts` left in a store, typed: for the table, the report's galleries and whoever asks.

In: a store and a split. Out: StoredConflicts, or None where conflicts were never looked for. Reads alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cleanctl.errors import StoreError
from cleanctl.score.conflict import Conflict, why_outdated
from cleanctl.store import Split, Store


@dataclass(frozen=True, kw_only=True)
class Leak:
    """A copy of an image in another split. row: of this split. similarity: in (0, 1], 1 for the same bytes."""

    row: int
    split: str
    other_row: int
    other_key: str
    other_label: int
    similarity: float


@dataclass(frozen=True, kw_only=True)
class ConflictGroup:
    """row_K: int64, rows of the split, the centre first, then by falling similarity_K (float32) to it. kept: the row
    that `~conflict.duplicate` leaves. label_K: int32, the given labels. kinds: of exact, near, label, placeholder and
    leak:SPLIT. A group with leaks may be one image."""

    number: int
    row_K: np.ndarray
    similarity_K: np.ndarray
    label_K: np.ndarray
    kept: int
    kinds: tuple[str, ...]
    leaks: tuple[Leak, ...]


@dataclass(frozen=True, kw_only=True)
class StoredConflicts:
    """outdated: what changed since, in words; empty where nothing did. compared_by: pixels or embeddings, in words.
    group_N: int32, the group of each row of the split, -1 without one; a group's number is its place in groups."""

    groups: tuple[ConflictGroup, ...]
    group_N: np.ndarray
    outdated: str
    compared_by: str
    made: str


def read_conflicts(store: Store, split: Split) -> StoredConflicts | None:
    """None where there is no score `conflict`; DamageError for one that is damaged."""
    if Conflict.name not in split.scores.attributes(damaged=False):
        return None
    stored = split.scores.read(Conflict.name)
    outdated = why_outdated(split, stored.attributes)
    leaks = _leaks(store, stored.arrays, list(stored.attributes.get("splits", [])), outdated)
    return StoredConflicts(
        groups=tuple(_groups(split, stored.arrays, leaks)),
        group_N=stored.arrays["group"],
        outdated=outdated,
        compared_by=str(stored.attributes.get("summary", {}).get("compared_by", "")),
        made=str(stored.attributes.get("made", "")),
    )


def _leaks(store: Store, arrays: dict[str, np.ndarray], splits: list[str], outdated: str) -> dict[int, Leak]:
    """row → its leak. Of splits that changed nothing can be told any more."""
    found = {}
    for place, name in enumerate(splits):
        row_L = np.flatnonzero((arrays["leak"] > 0) & (arrays["leak_split"] == place))
        if not len(row_L) or outdated:
            continue
        try:
            other = store.split(name)
        except StoreError:
            continue
        keys, label_N = other.keys(), other.label_N()
        for row, there in zip(row_L.tolist(), arrays["leak_row"][row_L].tolist()):
            found[row] = Leak(
                row=row,
                split=name,
                other_row=there,
                other_key=keys[there],
                other_label=int(label_N[there]),
                similarity=float(arrays["leak"][row]),
            )
    return found


def _groups(split: Split, arrays: dict[str, np.ndarray], leaks: dict[int, Leak]) -> list[ConflictGroup]:
    row_M = np.flatnonzero(arrays["group"] >= 0)
    if not len(row_M):
        return []
    given_N, digest_N16 = split.label_N(), split.fingerprints().digest_N16
    later_M = arrays["centre"][row_M] != row_M
    row_M = row_M[np.lexsort((row_M, -arrays["similarity"][row_M], later_M, arrays["group"][row_M]))]
    groups = []
    for number, row_K in enumerate(np.split(row_M, np.flatnonzero(np.diff(arrays["group"][row_M])) + 1)):
        digest_K = digest_N16[row_K]
        near = bool((digest_K != digest_K[0]).any()) or (len(row_K) > 1 and not digest_K.any())
        own = tuple(leaks[row] for row in row_K.tolist() if row in leaks)
        said = {
            "exact": bool(arrays["exact"][row_K].any()),
            "near": near,
            "label": bool(arrays["label"][row_K].any()),
            "placeholder": bool(arrays["placeholder"][row_K].any()),
            **{f"leak:{name}": True for name in sorted({leak.split for leak in own})},
        }
        groups.append(
            ConflictGroup(
                number=number,
                row_K=row_K,
                similarity_K=arrays["similarity"][row_K],
                label_K=given_N[row_K],
                kept=int(row_K[np.argmax(arrays["kept"][row_K])]),
                kinds=tuple(kind for kind, holds in said.items() if holds),
                leaks=own,
            )
        )
    return groups
