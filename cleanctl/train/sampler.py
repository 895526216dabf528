"""Which samples an epoch visits, in which order (docs/method.md B.2 and B.3). Pure arrays, drawn with the generator."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np


def balanced(label_n: np.ndarray, rng: np.random.Generator, *, legacy: bool = False) -> np.ndarray:
    """What an epoch visits, every present class as often as the largest one: int64 positions into `label_n`, by class.

    A class of n members under a largest class of M is repeated whole ⌊(M−1)/n⌋ times and filled up to M by a remainder
    of r ≤ n members. By default the remainder is drawn at random. `legacy` repeats the released code, whose
    remainder is the first r members in index order whenever r ≤ n/2, and only its end is random otherwise.
    """
    visits = []
    classes = _by_class(label_n)
    largest = max(map(len, classes), default=0)
    for members in classes:
        whole = (largest - 1) // len(members)
        rest = largest - whole * len(members)
        visits += [members] * whole + [_remainder(members, rest, rng, legacy=legacy)]
    return np.concatenate(visits) if visits else np.empty(0, np.int64)


def balanced_subset(label_n: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """At most ⌊count/K⌋ members of each of the K present classes, and at least one, each at most once: int64 positions.

    docs/method.md B.6: a set of `count` samples drawn anew for each epoch, no class above its share.
    """
    classes = _by_class(label_n)
    most = max(count // max(len(classes), 1), 1)
    drawn = [rng.permutation(members)[:most] for members in classes]
    return np.concatenate(drawn) if drawn else np.empty(0, np.int64)


def _by_class(label_n: np.ndarray) -> list[np.ndarray]:
    """Positions of each present class, in index order."""
    order_n = np.argsort(label_n, kind="stable").astype(np.int64)
    _, first_k = np.unique(label_n[order_n], return_index=True)
    return np.split(order_n, first_k[1:]) if len(label_n) else []


def _remainder(members: np.ndarray, rest: int, rng: np.random.Generator, *, legacy: bool) -> np.ndarray:
    if not legacy:
        return rng.permutation(members)[:rest]
    untouched = len(members) - rest
    return np.concatenate([members[:untouched], rng.permutation(members[untouched:])])[:rest]


def epoch_batches(
    member_n: np.ndarray,
    label_n: np.ndarray,
    *,
    sampler: str,
    steps: int,
    batch_size: int,
    rng: np.random.Generator,
) -> Iterator[np.ndarray]:
    """`steps` batches of the values in `member_n`, pass after pass.

    label_n: the classes that `member_n` take part with. sampler: "balanced", "balanced-legacy", "balanced-subset" or
    "shuffled" (every sample once). What is visited is drawn once, and each pass shuffles it. The last batch of a pass
    is kept although it is smaller (docs/method.md B.2, step 2), unless it holds a single image beside full ones: batch
    normalisation has no variance there.
    """
    visits = np.arange(len(label_n))
    if sampler in ("balanced", "balanced-legacy"):
        visits = balanced(label_n, rng, legacy=sampler == "balanced-legacy")
    elif sampler == "balanced-subset":
        visits = balanced_subset(label_n, steps * batch_size, rng)
    done = 0
    while done < steps:
        order = rng.permutation(visits)
        for begin in range(0, len(order), batch_size):
            batch = order[begin : begin + batch_size]
            if done == steps or (len(batch) == 1 < min(batch_size, len(order))):
                break
            yield member_n[batch]
            done += 1
