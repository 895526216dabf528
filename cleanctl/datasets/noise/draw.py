"""Label noise that depends on labels alone, in the order in which the published code draws it (docs/method.md D.2).

In: int32 labels (N,). Out: new int32 labels (N,). CPython's `random` makes the draws, so that a seed gives the same
labels on every machine and version. Which rows are drawn depends on their order.

    symmetric:R       ⌊R·N⌋ samples, drawn without repetition, get a uniform class, *the true one included*, so that
                      about R(C-1)/C are wrong; CLIPCleaner, and DeFT for CUB and Cars
    symmetric-deft:R  the same, after a shuffle of the classes that DeFT's loader of CIFAR makes in between
    asymmetric:R      the samples of `symmetric`, for the classes of CIFAR-10 in any order: truck→automobile,
                      bird→airplane, deer→horse, cat↔dog, others keep theirs
    pair:R            the same samples get the next class, k → k+1 mod C, whatever the data
    superclass:R      the same samples get the next class of their superclass, for the classes of CIFAR-100 in any order
    str:R             DeFT's structured noise: the samples of `symmetric-deft` whose class is in the first half of the
                      shuffled classes get a uniform class; about R(C-1)/2C are wrong
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np

from cleanctl.config import Noise
from cleanctl.datasets.cifar_classes import CIFAR10_CLASSES, CIFAR100_CLASSES, CIFAR100_SUPERCLASSES
from cleanctl.errors import UsageError

_TAKEN_FOR = {"truck": "automobile", "bird": "airplane", "deer": "horse", "cat": "dog", "dog": "cat"}
_SYNONYMS = {"plane": "airplane", "aeroplane": "airplane", "car": "automobile", "auto": "automobile", "lorry": "truck"}


def corrupt(label_N: np.ndarray, noise: Noise, *, classes: Sequence[str], seed: int) -> np.ndarray:
    """New int32 labels (N,), drawn in the order of `label_N`, which is not changed.

    Raises UsageError for `asymmetric` and `superclass` where the classes are not those of CIFAR-10 and CIFAR-100.
    """
    draw = random.Random(seed)
    out_N = np.array(label_N, dtype=np.int32)
    # In the published code a sample's label is drawn when its turn in row order comes, not in drawing order.
    chosen = sorted(_shuffled(len(out_N), draw)[: int(noise.rate * len(out_N))])
    if noise.kind in ("symmetric-deft", "str"):
        half = _shuffled(len(classes), draw)[: len(classes) // 2]
        if noise.kind == "str":
            chosen = np.array(chosen, dtype=np.int64)[np.isin(out_N[chosen], half)].tolist()
    if noise.kind in ("symmetric", "symmetric-deft", "str"):
        out_N[chosen] = [draw.randint(0, len(classes) - 1) for _ in chosen]
    else:
        out_N[chosen] = _next_class(noise.kind, classes)[out_N[chosen]]
    return out_N


def drawn_rows(count: int, rate: float, seed: int) -> list[int]:
    """The ⌊rate·count⌋ samples that `corrupt` draws for a seed, in drawing order."""
    return _shuffled(count, random.Random(seed))[: int(rate * count)]


def _shuffled(count: int, draw: random.Random) -> list[int]:
    numbers = list(range(count))
    draw.shuffle(numbers)
    return numbers


def _next_class(kind: str, classes: Sequence[str]) -> np.ndarray:
    """int32 (C,): the class that each class is taken for."""
    if kind == "pair":
        return (np.arange(len(classes), dtype=np.int32) + 1) % np.int32(len(classes))
    names = [name.strip().casefold() for name in classes]
    known: tuple[str, ...]
    if kind == "asymmetric":
        names = [_SYNONYMS.get(name, name) for name in names]
        table, known, whose = _TAKEN_FOR, CIFAR10_CLASSES, "CIFAR-10"
    else:
        names = [name.replace(" ", "_") for name in names]
        table, known, whose = _within_superclasses(), CIFAR100_CLASSES, "CIFAR-100"
    if sorted(names) != list(known):
        shown = ", ".join(classes[:4]) + (", …" if len(classes) > 4 else "")
        raise UsageError(
            f"--noise {kind} is defined for the classes of {whose}, and these are {len(classes)}: {shown}.",
            so="Which class is taken for which is not known.",
            do="Use pair:RATE, which gives each drawn sample the next class.",
        )
    return np.array([names.index(table.get(name, name)) for name in names], dtype=np.int32)


def _within_superclasses() -> dict[str, str]:
    """Cyclic in the order of fine labels, as in the literature that shifts within superclasses."""
    return {name: five[(at + 1) % len(five)] for five in CIFAR100_SUPERCLASSES.values() for at, name in enumerate(five)}
