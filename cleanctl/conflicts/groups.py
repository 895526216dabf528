"""Pairs of images that are copies of each other → groups, each with a centre that every member is a copy of.

A group is a star, so nothing is chained: where A is like B and B like C, C is in A's group only if it is like A. Dense
images become centres first. Neighbours are cut off at K, so a picture with thousands of copies falls into many stars;
these are joined, round by round, where their centres are alike, and a member moves only if it is like the new centre.
Pure but for `alike`, which compares further pairs.

Legend: M images, P pairs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Alike = Callable[[np.ndarray, np.ndarray], np.ndarray]  # (first, second) → (P,) float32, 0 where they are no copies
ROUNDS = 8
LINKS = 8  # other centres that a group is compared with in a round


@dataclass(frozen=True)
class Stars:
    """centre_M: int64, whose group an image is in; -1 without one. alike_M: float32, to the centre; 1 of itself."""

    centre_M: np.ndarray
    alike_M: np.ndarray

    @classmethod
    def none(cls, count: int) -> Stars:
        return cls(np.full(count, -1, np.int64), np.zeros(count, np.float32))


def group(count: int, first_P: np.ndarray, second_P: np.ndarray, alike_P: np.ndarray, alike: Alike) -> Stars:
    """Groups of `count` images, from the pairs that are copies."""
    stars = _stars(count, first_P, second_P, alike_P)
    known: dict[tuple[int, int], float] = {}
    for _ in range(ROUNDS):
        pairs = _linked(stars, first_P, second_P)
        fresh = [pair for pair in pairs if pair not in known]
        if fresh:
            one, other = np.array(fresh).T
            known.update(zip(fresh, alike(one, other).tolist()))
        if not _joined(stars, {pair: known[pair] for pair in pairs if known[pair] > 0}, alike):
            break
    return _without_lone(stars)


def _stars(count: int, first_P: np.ndarray, second_P: np.ndarray, alike_P: np.ndarray) -> Stars:
    """Greedy: of the images without a group the one with the most copies takes all of its copies without a group."""
    stars = Stars.none(count)
    one = np.concatenate([first_P, second_P])
    other = np.concatenate([second_P, first_P])
    order = np.argsort(one, kind="stable")
    one, other, alike = one[order], other[order], np.concatenate([alike_P, alike_P])[order]
    node, start, degree = np.unique(one, return_index=True, return_counts=True)
    for place in np.lexsort((node, -degree)).tolist():
        if stars.centre_M[node[place]] >= 0:
            continue
        near = slice(start[place], start[place] + degree[place])
        free = stars.centre_M[other[near]] < 0
        member = other[near][free]
        stars.centre_M[member], stars.alike_M[member] = node[place], alike[near][free]
        stars.centre_M[node[place]], stars.alike_M[node[place]] = node[place], 1
    return stars


def _linked(stars: Stars, first_P: np.ndarray, second_P: np.ndarray) -> list[tuple[int, int]]:
    """Pairs of centres whose groups hold copies of each other, the larger group's first, or of equal ones the lower
    number; at most LINKS for each."""
    one_P, other_P = stars.centre_M[first_P], stars.centre_M[second_P]
    apart_P = one_P != other_P
    size = np.bincount(stars.centre_M[stars.centre_M >= 0], minlength=len(stars.centre_M))
    pair = np.unique(np.sort(np.stack([one_P, other_P], axis=1)[apart_P], axis=1), axis=0)
    swap = size[pair[:, 0]] < size[pair[:, 1]]
    pair[swap] = pair[swap][:, ::-1]
    chosen, used = [], dict.fromkeys(pair[:, 1].tolist(), 0)
    for large, small in pair[np.argsort(-size[pair[:, 0]], kind="stable")].tolist():
        if used[small] < LINKS:
            used[small] += 1
            chosen.append((large, small))
    return chosen


def _joined(stars: Stars, alike_centres: dict[tuple[int, int], float], alike: Alike) -> int:
    """Moves members of small groups into those of alike centres, (large, small) → likeness; gives how many moved."""
    best: dict[int, tuple[float, int]] = {}
    for (large, small), found in alike_centres.items():
        best[small] = max(best.get(small, (0.0, -1)), (found, large))
    target = {small: large for small, (_, large) in best.items() if large not in best}  # no centre moves twice a round
    if not target:
        return 0
    order = np.argsort(stars.centre_M, kind="stable")
    begin = np.searchsorted(stars.centre_M[order], list(target))
    end = np.searchsorted(stars.centre_M[order], list(target), side="right")
    member = [order[one:other] for one, other in zip(begin.tolist(), end.tolist())]
    to = np.repeat(list(target.values()), [len(one) for one in member])
    moving = np.concatenate(member)
    alike_P = alike(to, moving)
    stays = moving[alike_P == 0]
    moves_P = alike_P > 0
    # A centre whose group is not emptied stays where it is, as what is left is like it.
    kept_centres = np.unique(stars.centre_M[stays])
    moves_P &= ~np.isin(moving, kept_centres)
    stars.centre_M[moving[moves_P]], stars.alike_M[moving[moves_P]] = to[moves_P], alike_P[moves_P]
    return int(moves_P.sum())


def _without_lone(stars: Stars) -> Stars:
    """A centre that all members left has no group."""
    size = np.bincount(stars.centre_M[stars.centre_M >= 0], minlength=len(stars.centre_M))
    lone = np.flatnonzero((stars.centre_M >= 0) & (size[np.maximum(stars.centre_M, 0)] < 2))
    stars.centre_M[lone], stars.alike_M[lone] = -1, 0
    return stars
