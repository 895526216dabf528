"""Which labels to look at, so that few looks say much: strata by kept or not and score, spread over the classes.

Legend: N rows, H strata, n looks in all, y: 1 where a label is wrong, q: how probable that is by the score, drawn in
from 0 and 1 by FLOOR, because a score can be sure and wrong.

Each of the three quantities (noise rate, precision, recall) is, to first order, a sum of g_i y_i; its variance is least
if rows are looked at in proportion to |g_i| sqrt(q_i (1 - q_i)) (Neyman 1934). The quantities are weighted by what each
could gain: between its variance under simple random sampling and the least. Kept and dropped rows, sorted by the score,
are cut where the sum of that spread reaches equal parts, so that each stratum gets about as many looks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

BANDS = 10
FLOOR = 0.02
LEAST = 4  # looks in a stratum, where it has so many rows


@dataclass(frozen=True, kw_only=True)
class Plan:
    """stratum_N: int16. keep_H: bool. size_H, looks_H: int64, 0 <= looks <= size."""

    stratum_N: np.ndarray
    keep_H: np.ndarray
    size_H: np.ndarray
    looks_H: np.ndarray


def plan(score_N: np.ndarray, keep_N: np.ndarray, looks: int) -> Plan:
    """score_N: in [0, 1], how probable it is that the label is right; only its order is relied on. looks: 1 … N."""
    wrong_N = FLOOR + (1 - 2 * FLOOR) * (1 - np.clip(score_N.astype(np.float64), 0, 1))
    spread_N = _spread(wrong_N, keep_N)
    stratum_N = np.zeros(len(score_N), np.int16)
    count = 0
    for side_N in (keep_N, ~keep_N):
        row_M = np.flatnonzero(side_N)
        if not len(row_M):
            continue
        row_M = row_M[np.argsort(-score_N[row_M], kind="stable")]
        part = float(spread_N[row_M].sum() / spread_N.sum())
        bands = int(np.clip(round(BANDS * part), 1, max(1, len(row_M) // LEAST)))
        reached_M = np.cumsum(spread_N[row_M])
        place_M = np.searchsorted(np.arange(1, bands) * reached_M[-1] / bands, reached_M, side="left")
        used, place_M = np.unique(place_M, return_inverse=True)
        stratum_N[row_M] = count + place_M
        count += len(used)
    size_H = np.bincount(stratum_N, minlength=count)
    return Plan(
        stratum_N=stratum_N,
        keep_H=np.bincount(stratum_N, weights=keep_N, minlength=count) > 0,
        size_H=size_H,
        looks_H=allocate(np.bincount(stratum_N, weights=spread_N, minlength=count), size_H, looks),
    )


def _spread(wrong_N: np.ndarray, keep_N: np.ndarray) -> np.ndarray:
    """(N,) what a row's look is worth, up to a factor."""
    right_N = 1 - wrong_N
    count, kept, right = len(keep_N), int(keep_N.sum()), float(right_N.sum())
    recall = float(right_N[keep_N].sum()) / right
    slope = {
        "noise": np.full(count, 1 / count),
        "precision": np.where(keep_N, 1 / max(kept, 1), 0.0),
        "recall": np.where(keep_N, (1 - recall) / right, recall / right),
    }
    noise, lost = float(wrong_N.mean()), float(wrong_N[keep_N].mean()) if kept else 0.0
    random = {  # variance of one look at random
        "noise": noise * (1 - noise),
        "precision": lost * (1 - lost) * count / max(kept, 1),
        "recall": recall * (1 - recall) * count / right,
    }
    variance_N = wrong_N * right_N
    squares_N = np.zeros(count)
    for name, slope_N in slope.items():
        least = float(slope_N @ np.sqrt(variance_N)) ** 2
        if least > 0 and random[name] > 0:
            squares_N += slope_N**2 / np.sqrt(least * random[name])
    spread_N: np.ndarray = np.sqrt(squares_N * variance_N)
    return spread_N


def allocate(spread_H: np.ndarray, size_H: np.ndarray, looks: int) -> np.ndarray:
    """(H,) int64 that add up to `looks`: in proportion to the spread, LEAST where that is possible, never above the
    size; the largest remainders are rounded up."""
    looks = min(looks, int(size_H.sum()))
    least_H = np.minimum(size_H, min(LEAST, looks // len(size_H)))
    low, high = 0.0, looks / float(spread_H[spread_H > 0].min()) + 1
    high = max(high, float((size_H / np.maximum(spread_H, 1e-300)).max()))
    for _ in range(200):
        middle = (low + high) / 2
        if np.clip(middle * spread_H, least_H, size_H).sum() < looks:
            low = middle
        else:
            high = middle
    share_H = np.clip(high * spread_H, least_H, size_H)
    looks_H = np.floor(share_H + 1e-9).astype(np.int64)
    order_H = np.argsort(-(share_H - looks_H), kind="stable")
    while (missing := looks - int(looks_H.sum())) != 0:
        open_H = [h for h in order_H if (looks_H[h] < size_H[h] if missing > 0 else looks_H[h] > 0)]
        for h in open_H[: abs(missing)]:
            looks_H[h] += 1 if missing > 0 else -1
    return looks_H


def draw(stratum_N: np.ndarray, looks_H: np.ndarray, label_N: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(n,) int64 rows, in the order in which to look: any first part of it holds about its share of every stratum.

    Inside a stratum every row has the same chance. It is drawn at equal steps through the rows sorted by class, classes
    and the rows of one in random order, so that each class gets its part, which can only make the estimate steadier.
    """
    rows, places = [], []
    for h, looks in enumerate(looks_H.tolist()):
        row_M = rng.permutation(np.flatnonzero(stratum_N == h))
        number_M = rng.permutation(int(label_N.max()) + 1)[label_N[row_M]]
        row_M = row_M[np.argsort(number_M, kind="stable")]
        step = len(row_M) / max(looks, 1)
        at = np.minimum(((np.arange(looks) + rng.random()) * step).astype(np.int64), len(row_M) - 1)
        rows.append(rng.permutation(row_M[at]))
        places.append((np.arange(looks) + rng.random(looks)) / max(looks, 1))
    return np.concatenate(rows)[np.argsort(np.concatenate(places), kind="stable")]
