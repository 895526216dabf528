"""Stars and leaks → groups by falling size, and what is wrong with each image. Pure.

Legend: N images of the split itself, by their pool numbers; G groups.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cleanctl.conflicts.groups import Stars
from cleanctl.conflicts.pool import Pool

FEWEST_LABELS = 3  # of a placeholder, or all classes where there are fewer
MOST_OF_ONE_LABEL = 0.6


@dataclass(frozen=True, kw_only=True)
class Findings:
    """member_G: pool numbers of each group's images, the centre first, then by falling likeness. leak_N: likeness of
    the copy leak_to_N (pool number) in another split; 0 and -1 without one."""

    member_G: list[np.ndarray]
    similarity_N: np.ndarray
    kept_N: np.ndarray
    exact_N: np.ndarray
    label_N: np.ndarray
    placeholder_N: np.ndarray
    leak_N: np.ndarray
    leak_to_N: np.ndarray

    def arrays(self, pool: Pool) -> dict[str, np.ndarray]:
        """As the scorer `conflict` reads them (cleanctl/score/conflict.py)."""
        group_N, centre_N = (np.full(pool.own, -1, np.int32) for _ in range(2))
        for number, member_K in enumerate(self.member_G):
            group_N[member_K], centre_N[member_K] = number, pool.row_M[member_K[0]]
        there_N = self.leak_to_N >= 0
        to_N = np.maximum(self.leak_to_N, 0)
        flags = {"kept": self.kept_N, "exact": self.exact_N, "label": self.label_N, "placeholder": self.placeholder_N}
        return {
            "group": group_N,
            "centre": centre_N,
            "similarity": self.similarity_N,
            **{name: flag_N.astype(np.int8) for name, flag_N in flags.items()},
            "leak": self.leak_N,
            "leak_split": np.where(there_N, pool.part_M[to_N], -1).astype(np.int32),
            "leak_row": np.where(there_N, pool.row_M[to_N], -1).astype(np.int32),
        }


def arrange(
    pool: Pool, stars: Stars, leak: tuple[np.ndarray, np.ndarray], *, placeholder_copies: int, classes: int
) -> Findings:
    """stars: of the images that stand for their twins. A leaking image without a copy in its split is a group too."""
    twin_N = pool.twin_M[: pool.own]
    centre_N, similarity_N = stars.centre_M[twin_N], stars.alike_M[twin_N]
    exact_N = np.bincount(twin_N, minlength=pool.own)[twin_N] > 1
    alone_N = (centre_N < 0) & (exact_N | (leak[1] >= 0))
    centre_N[alone_N], similarity_N[alone_N] = twin_N[alone_N], 1
    numbers = np.flatnonzero(centre_N >= 0)
    first = centre_N[numbers] != numbers  # the centre stands first
    order = numbers[np.lexsort((numbers, -similarity_N[numbers], first, centre_N[numbers]))]
    member_G = np.split(order, np.flatnonzero(np.diff(centre_N[order])) + 1) if len(order) else []
    member_G.sort(key=lambda member_K: (-len(member_K), int(member_K[0])))
    given_N = pool.label_M[: pool.own]
    kept_N, label_N, placeholder_N = (np.zeros(pool.own, bool) for _ in range(3))
    for member_K in member_G:
        label_K, at_K, count_K = np.unique(given_N[member_K], return_inverse=True, return_counts=True)
        label_N[member_K] = len(label_K) > 1
        kept_N[member_K[np.argmax(count_K[at_K])]] = True  # the first, which is most like the centre, of those most say
        many = len(member_K) >= placeholder_copies and len(label_K) >= min(FEWEST_LABELS, classes)
        placeholder_N[member_K] = many and count_K.max() <= MOST_OF_ONE_LABEL * len(member_K)
    return Findings(
        member_G=member_G,
        similarity_N=similarity_N.astype(np.float32),
        kept_N=kept_N,
        exact_N=exact_N,
        label_N=label_N,
        placeholder_N=placeholder_N,
        leak_N=leak[0],
        leak_to_N=leak[1],
    )
