"""Which samples an epoch visits, in which order (docs/method.md B.2 and B.3). Pure arrays, drawn with the generator."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np


def balanced(label_n: np.ndarray, rng: np.random.Generator, *, legacy: bool = False) -> np.ndarray:
    """One pass in which every present class is visited as often as the largest one: int64 positions into `label_n`.

    A class of n members under a largest class of M is repeated whole ⌊(M−1)/n⌋ times and filled up to M by a remainder
    of r ≤ n members. By default the remainder is drawn at random. `legacy` repeats the released code, whose
    remainder is the first r members in index order whenever r ≤ n/2, and only its end is random otherwise.
    """
    if len(label_n) == 0:
        return np.empty(0, np.int64)
    order_n = np.argsort(label_n, kind="stable")
    _, first_k, count_k = np.unique(label_n[order_n], return_index=True, return_counts=True)
    largest = int(count_k.max())
    visits = []
    for first, count in zip(first_k, count_k):
        members = order_n[first : first + count]
        whole = (largest - 1) // int(count)
        rest = largest - whole * int(count)
        visits += [members] * whole + [_remainder(members, rest, rng, legacy=legacy)]
    return rng.permutation(np.concatenate(visits)).astype(np.int64)


def _remainder(members: np.ndarray, rest: int, rng: np.random.Generator, *, legacy: bool) -> np.ndarray:
    if not legacy:
        return rng.permutation(members)[:rest]
    untouched = len(members) - rest
    return np.concatenate([members[:untouched], rng.permutation(members[untouched:])])[:rest]


def shuffled(label_n: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One pass that visits every sample once."""
    return rng.permutation(len(label_n)).astype(np.int64)


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

    label_n: the classes that `member_n` take part with. sampler: "balanced", "balanced-legacy" or "shuffled". The last
    batch of a pass is kept although it is smaller (docs/method.md B.2, step 2), unless it holds a single image beside
    full ones: batch normalisation has no variance there.
    """
    done = 0
    while done < steps:
        if sampler == "shuffled":
            order = shuffled(label_n, rng)
        else:
            order = balanced(label_n, rng, legacy=sampler == "balanced-legacy")
        for begin in range(0, len(order), batch_size):
            batch = order[begin : begin + batch_size]
            if done == steps or (len(batch) == 1 < min(batch_size, len(order))):
                break
            yield member_n[batch]
            done += 1
