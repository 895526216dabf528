"""A number for each position of an epoch, from which a random crop is made (`geometry.random_box`)."""

from __future__ import annotations

import numpy as np

DRAW_BITS = 23  # what the FFCV loader can carry beside a row number in one index


def draws_of(count: int, seed: int, done: int = 0) -> np.ndarray:
    """int64 (count,) in 0…2^23-1, for the positions from `done` on; a function of the seed and the position only,
    whatever the batch size and wherever an epoch goes on."""
    rng = np.random.Generator(np.random.PCG64(seed))
    return rng.integers(0, 1 << DRAW_BITS, size=done + count, dtype=np.int64)[done:]
