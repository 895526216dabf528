"""Label noise made on purpose, in the conventions of the CLIPCleaner code, and the hash that writes it down.

In: int32 labels (N,) in row order. Out: new int32 labels (N,). CPython's `random` makes the draws, so that a seed gives
the same labels on every machine and version, and the published sets are reproduced (docs/method.md D.3).

    symmetric:R    ⌊R·N⌋ samples, drawn without repetition, get a uniform class, *the true one included*, so that
                   about R(C-1)/C are wrong
    asymmetric:R   the same samples; CIFAR-10: truck→automobile, bird→airplane, deer→horse, cat↔dog, others keep
                   theirs; other data: as `pair`
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
CIFAR10_CONFUSIONS = {9: 1, 2: 0, 4: 7, 3: 5, 5: 3}


parse_noise = Noise.parse


def corrupt(
    label_N: np.ndarray,
    *,
    kind_rate: str,
    num_classes: int,
    seed: int,
    classes: Sequence[str] | None = None,
) -> np.ndarray:
    """New int32 labels (N,); the input is not changed. `classes` lets `asymmetric` recognise CIFAR-10 by its names."""
    noise = parse_noise(kind_rate)
    draw = random.Random(seed)
    order = list(range(len(label_N)))
    draw.shuffle(order)
    # In the published code a sample's label is drawn when its turn in row order comes, not in drawing order.
    chosen = sorted(order[: int(noise.rate * len(label_N))])
    out_N = np.array(label_N, dtype=np.int32)
    if noise.kind == "symmetric":
        out_N[chosen] = [draw.randint(0, num_classes - 1) for _ in chosen]
    else:
        out_N[chosen] = _confusion(noise.kind, num_classes, classes)[out_N[chosen]]
    return out_N


def _confusion(kind: str, num_classes: int, classes: Sequence[str] | None) -> np.ndarray:
    """int32 (C,): the class each class is taken for."""
    target_C = np.arange(num_classes, dtype=np.int32)
    if kind == "asymmetric" and classes is not None and tuple(classes) == CIFAR10_CLASSES:
        target_C[list(CIFAR10_CONFUSIONS)] = list(CIFAR10_CONFUSIONS.values())
        return target_C
    return (target_C + 1) % np.int32(num_classes)


def label_hash(label_N: np.ndarray) -> str:
    """First 16 hex digits of SHA-256 over the labels: as uint8 where they fit (as published), else as int32."""
    small = len(label_N) == 0 or int(np.max(label_N)) < 256
    return hashlib.sha256(np.asarray(label_N).astype("u1" if small else "<i4").tobytes()).hexdigest()[:16]


def add_noise(dataset: Dataset, *, kind_rate: str, seed: int, split: str = "train") -> Dataset:
    """The dataset with noisy labels in `split`; what the labels were becomes the truth, unless a truth was known.

    A note says how many labels changed and their hash. Raises UsageError if the split is not there.
    """
    parse_noise(kind_rate)
    if split not in [manifest.split for manifest in dataset.splits]:
        found = ", ".join(manifest.split for manifest in dataset.splits)
        raise UsageError(
            f"--noise needs a split named {split!r}, and the source has: {found}.",
            do="Leave --noise out, or embed the training split too.",
        )
    splits, notes = [], list(dataset.notes)
    for manifest in dataset.splits:
        if manifest.split == split:
            manifest, note = _noisy(manifest, kind_rate, dataset.classes, seed)
            notes.append(note)
        splits.append(manifest)
    return replace(dataset, splits=tuple(splits), notes=tuple(notes))


def _noisy(manifest: SplitManifest, kind_rate: str, classes: tuple[str, ...], seed: int) -> tuple[SplitManifest, str]:
    label_N = corrupt(manifest.label_N, kind_rate=kind_rate, num_classes=len(classes), seed=seed, classes=classes)
    truth_N = manifest.label_N if manifest.truth_N is None else manifest.truth_N
    changed = int((label_N != manifest.label_N).sum())
    note = (
        f"Noise {kind_rate} with seed {seed} changed {changed:,} of {len(label_N):,} labels of "
        f"{manifest.split!r} (label hash {label_hash(label_N)})."
    )
    return replace(manifest, label_N=label_N, truth_N=truth_N), note
