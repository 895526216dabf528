"""What happens to classes of which no sample survives (docs/method.md A.6).

In: the kept set, labels, a score (N,). Out: a kept set in which each such class has its `m` samples. Pure.
"""

from __future__ import annotations

import numpy as np


def top_up(
    keep_N: np.ndarray, label_N: np.ndarray, score_N: np.ndarray, *, num_classes: int, kind: str
) -> tuple[np.ndarray, dict[int, int]]:
    """Fills classes without survivors with m = max(smallest non-zero class count, ⌊N/C²⌋) of their samples.

    kind: `best` takes the highest scores, `lowest` the lowest (what the published code does), `none` leaves them
    empty. Ties go to the lower row. Returns the new set and how many samples each topped-up class received.
    """
    count_C = np.bincount(label_N, minlength=num_classes)
    kept_C = np.bincount(label_N[keep_N], minlength=num_classes)
    empty_C = np.flatnonzero((kept_C == 0) & (count_C > 0))
    if kind == "none" or not len(empty_C):
        return keep_N, {}
    survivors = kept_C[kept_C > 0]
    # At least one: with every class empty and N < C² the formula would add nothing.
    target = max(int(survivors.min()) if len(survivors) else 1, len(label_N) // num_classes**2)
    filled_N, added = keep_N.copy(), {}
    for k in empty_C:
        row_M = np.flatnonzero(label_N == k)
        order_M = np.argsort(score_N[row_M] if kind == "lowest" else -score_N[row_M], kind="stable")
        chosen = row_M[order_M[:target]]
        filled_N[chosen] = True
        added[int(k)] = len(chosen)
    return filled_N, added
