"""Complementary labels, drawn by a stateless generator: the same for a row whatever was drawn before it.

In: seed, epoch, rows and their labels. Out: a class that is not the label, uniform over the others. A run that is
resumed, split over processes or read in another order draws the same labels. Pure.
"""

from __future__ import annotations

import numpy as np

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def complementary_labels(
    seed: int, epoch: int, row_B: np.ndarray, label_B: np.ndarray, *, num_classes: int
) -> np.ndarray:
    """(B,) int64, each in 0…C-1 and not label_B (docs/method.md C.2's ȳ).

    epoch counts from 0; row_B are rows of the split in store order; num_classes at least 2.
    """
    assert num_classes >= 2, "one class has no other"
    other_B = (uniform_bits(seed, epoch, row_B) % np.uint64(num_classes - 1)).astype(np.int64)
    return other_B + (other_B >= label_B)


def uniform_bits(seed: int, epoch: int, row_B: np.ndarray) -> np.ndarray:
    """(B,) uint64: 64 well-mixed bits for each (seed, epoch, row), by SplitMix64's finaliser over the three."""
    bits_B = _mixed(np.asarray([seed], np.uint64))
    for word in (np.asarray([epoch], np.uint64), np.asarray(row_B).astype(np.uint64)):
        bits_B = _mixed(bits_B + word * _GOLDEN)
    return bits_B


def _mixed(bits_B: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):  # arithmetic modulo 2**64 is meant
        bits_B = bits_B + _GOLDEN
        bits_B = (bits_B ^ (bits_B >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        bits_B = (bits_B ^ (bits_B >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return bits_B ^ (bits_B >> np.uint64(31))
