"""Label noise made on purpose, in the conventions of the CLIPCleaner code, and the hash that writes it down.

In: int32 labels (N,). Out: new int32 labels (N,). CPython's `random` makes the draws, so that a seed gives the same
labels on every machine and version. Which rows are drawn depends on their order: a seed of the published code gives
the published labels in the dataset's published order alone (docs/method.md D.3), and `add_noise` says which it used.

    symmetric:R    ⌊R·N⌋ samples, drawn without repetition, get a uniform class, *the true one included*, so that
                   about R(C-1)/C are wrong
    asymmetric:R   the same samples, for the classes of CIFAR-10 in any order: truck→automobile, bird→airplane,
                   deer→horse, cat↔dog, others keep theirs
    pair:R         the same samples get the next class, k → k+1 mod C, whatever the data
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from cleanctl.config import Noise
from cleanctl.errors import UsageError

if TYPE_CHECKING:
    from cleanctl.records import Dataset, SplitManifest

CIFAR10_CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"
)  # fmt: skip
_TAKEN_FOR = {"truck": "automobile", "bird": "airplane", "deer": "horse", "cat": "dog", "dog": "cat"}
_SYNONYMS = {"plane": "airplane", "aeroplane": "airplane", "car": "automobile", "auto": "automobile", "lorry": "truck"}


def corrupt(label_N: np.ndarray, noise: Noise, *, classes: Sequence[str], seed: int) -> np.ndarray:
    """New int32 labels (N,), drawn in the order of `label_N`, which is not changed.

    Raises UsageError for `asymmetric` where the classes are not CIFAR-10's.
    """
    draw = random.Random(seed)
    order = list(range(len(label_N)))
    draw.shuffle(order)
    # In the published code a sample's label is drawn when its turn in row order comes, not in drawing order.
    chosen = sorted(order[: int(noise.rate * len(label_N))])
    out_N = np.array(label_N, dtype=np.int32)
    if noise.kind == "symmetric":
        out_N[chosen] = [draw.randint(0, len(classes) - 1) for _ in chosen]
    else:
        out_N[chosen] = (_confusion(classes) if noise.kind == "asymmetric" else _next(classes))[out_N[chosen]]
    return out_N


def _next(classes: Sequence[str]) -> np.ndarray:
    return (np.arange(len(classes), dtype=np.int32) + 1) % np.int32(len(classes))


def _confusion(classes: Sequence[str]) -> np.ndarray:
    """int32 (10,): the class that each class of CIFAR-10 is taken for."""
    names = [_SYNONYMS.get(name.strip().casefold(), name.strip().casefold()) for name in classes]
    if sorted(names) != list(CIFAR10_CLASSES):
        shown = ", ".join(classes[:4]) + (", …" if len(classes) > 4 else "")
        raise UsageError(
            f"--noise asymmetric is defined for the classes of CIFAR-10, and these are {len(classes)}: {shown}.",
            so="Which class is taken for which is not known.",
            do="Use pair:RATE, which gives each drawn sample the next class.",
        )
    return np.array([names.index(_TAKEN_FOR.get(name, name)) for name in names], dtype=np.int32)


def label_hash(label_N: np.ndarray) -> str:
    """First 16 hex digits of SHA-256 over the labels: as uint8 where they fit (as published), else as int32."""
    small = len(label_N) == 0 or int(np.max(label_N)) < 256
    return hashlib.sha256(np.asarray(label_N).astype("u1" if small else "<i4").tobytes()).hexdigest()[:16]


def add_noise(dataset: Dataset, noise: Noise, *, seed: int, split: str = "train") -> Dataset:
    """The dataset with noisy labels in `split`; what the labels were becomes the truth, unless a truth was known.

    Labels are drawn in the published order of the rows where the dataset gives one, else in the order of sorted keys.
    A note says which, how many labels changed, and the hash of the labels in that order. Raises UsageError if the
    split is not there.
    """
    if split not in [manifest.split for manifest in dataset.splits]:
        found = ", ".join(manifest.split for manifest in dataset.splits)
        raise UsageError(
            f"--noise needs a split named {split!r}, and the source has: {found}.",
            do="Leave --noise out, or embed the training split too.",
        )
    splits, notes = [], list(dataset.notes)
    for manifest in dataset.splits:
        if manifest.split == split:
            manifest, note = _noisy(manifest, noise, dataset.classes, seed)
            notes.append(note)
        splits.append(manifest)
    return replace(dataset, splits=tuple(splits), notes=tuple(notes))


def _noisy(manifest: SplitManifest, noise: Noise, classes: tuple[str, ...], seed: int) -> tuple[SplitManifest, str]:
    published_N = manifest.published_N
    row_N = np.arange(len(manifest)) if published_N is None else np.argsort(published_N, kind="stable")
    drawn_N = corrupt(manifest.label_N[row_N], noise, classes=classes, seed=seed)
    label_N = np.empty_like(drawn_N)
    label_N[row_N] = drawn_N
    truth_N = manifest.label_N if manifest.truth_N is None else manifest.truth_N
    changed = int((label_N != manifest.label_N).sum())
    order = (
        "in the dataset's published order"
        if published_N is not None
        else "in the order of sorted keys; published seeds give the published labels only in the published order"
    )
    note = (
        f"Noise {noise} with seed {seed} changed {changed:,} of {len(label_N):,} labels of {manifest.split!r} "
        f"(label hash {label_hash(drawn_N)}), drawn {order}."
    )
    return replace(manifest, label_N=label_N, truth_N=truth_N), note
