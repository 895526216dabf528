"""What a look at each row is expected to bring: the order in which a person reviews, and which images go into the page.

A look changes most where the evidence is undecided: the rules disagree, the row lies near a threshold, the label's
probability is neither high nor low, its pair of classes is often confused. The four count alike; each is in [0, 1].
Pure.
"""

from __future__ import annotations

import numpy as np

from cleanctl.report.evidence import Evidence, division
from cleanctl.report.snapshot import Snapshot


def gain_of(snapshot: Snapshot, evidence: tuple[Evidence, ...]) -> np.ndarray:
    """(N,) float32 in [0, 1]; 0 in rows without evidence."""
    p_N = np.nan_to_num(snapshot.selection.p_label.astype(np.float64))
    undecided_N = 4 * p_N * (1 - p_N)
    near_N = 1 - np.min([one.distance() for one in evidence], axis=0) if evidence else np.zeros(len(snapshot))
    gain_N = (division(snapshot, evidence) + near_N + undecided_N + _confused(snapshot)) / 4
    return np.where(snapshot.ok_N, gain_N, 0.0).astype(np.float32)


def _confused(snapshot: Snapshot) -> np.ndarray:
    """(N,) float: how often the row's pair (given, likely) is confused, relative to the most confused pair."""
    classes = len(snapshot.classes)
    ok_N = snapshot.ok_N
    pair_M = snapshot.label_N[ok_N].astype(np.int64) * classes + snapshot.selection.suggested[ok_N]
    values, place_M, count = np.unique(pair_M, return_inverse=True, return_counts=True)
    count = np.where(values // classes == values % classes, 0, count)
    share_N = np.zeros(len(snapshot))
    share_N[ok_N] = (count / max(int(count.max(initial=0)), 1))[place_M]
    return share_N
