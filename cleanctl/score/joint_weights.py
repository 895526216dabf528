"""The weights a and b of the views of the scorer `joint`: those under which a sample's given labels are likeliest.

In: zero-shot logits L and the head's G of the sample (M, C), the largest of a row 0, and its given labels. Out: a and b
of two grids with the highest mean ln P(given label), T fitted to each pair by a few steps of EM.

Up to FEW classes all pairs are tried, on whole rows. With more, a pair costs M × C and C × C many times over, and a
pair's fit changes little from one place of the grid to the next. Then some pairs spread over the grid are tried, or the
last round's choice, and from the best of them its neighbours until none is better; and of each row the NEAREST classes
of each view and the given one, with T at the pairs (class, given label) that occur. What is left out of a row counts as
spread evenly; its share is exact. Nothing is drawn at random. Leaves nothing on disk.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from cleanctl_kernels.arrays import as_array_like, namespace, numbers, to_numpy

from cleanctl.score.joint_arrays import Products, agreement, double, highest, row_max, single
from cleanctl.score.joint_channel import ALPHA, Groups, Whole, fit_channel
from cleanctl.score.joint_tiles import TINY, Each
from cleanctl.score.scorer import ALONE

HEAD = (0.0, 0.05, 0.1, 0.2, 0.4, 0.7, 1.0)  # a
PROMPTS = (0.0, 0.15, 0.3, 0.5, 0.75, 1.0)  # b
UNIT = 0.05  # of which all of these are multiples
BETTER = 1e-4  # mean ln P by which a later pair must win
ITERATIONS = 12
FEW = 128
NEAREST = 12
SPREAD = ((1, 1), (1, 3), (1, 5), (3, 1), (3, 3), (3, 5), (5, 1), (5, 3), (5, 5))  # places of the grid tried first
TILE = 1 << 15  # entries of the sample that are worked on at once
SHARPEST, STEPS, CLOSE = 40.0, 40, 1e-7

Pair = tuple[float, float]


def mixed(prompts_BC: Any, head_BC: Any, pair: Pair) -> Any:
    """a of the head, b of the prompts."""
    a, b = pair
    mix = prompts_BC * b
    mix += head_BC * a
    return mix


def sharpness(logit_MC: Any, target: float, each: Each) -> float:
    """Smallest m ≥ 1 at which the mean of the highest probability is `target` or more; at most SHARPEST. By regula
    falsi on ln m (the Illinois rule)."""
    low, high = 0.0, float(np.log(SHARPEST))
    under, over = (sureness(logit_MC, float(np.exp(end)), each) - target for end in (low, high))
    if under >= 0 or over <= 0:
        return 1.0 if under >= 0 else SHARPEST
    middle, side = low, 0
    for _ in range(STEPS):
        middle = (low * over - high * under) / (over - under)
        value = sureness(logit_MC, float(np.exp(middle)), each) - target
        if abs(value) < CLOSE:
            break
        if value < 0:
            low, under, over, side = middle, value, over / 2 if side < 0 else over, -1
        else:
            high, over, under, side = middle, value, under / 2 if side > 0 else under, 1
    return float(np.exp(middle))


def sureness(logit_MC: Any, sharp: float, each: Each) -> float:
    """Mean of the highest probability; the largest logit of a row is its highest probability's."""

    def work(tile: slice) -> float:
        logit_BC = logit_MC[tile]
        mass_BC = (logit_BC - row_max(logit_BC)) * sharp
        xp = namespace(mass_BC)
        xp.exp(mass_BC, out=mass_BC)
        return float((1.0 / double(mass_BC.sum(axis=1))).sum())

    return sum(each(work, _tiles(logit_MC))) / len(logit_MC)


class Weights:
    """`choose` once a round; what a round finds makes the next one shorter."""

    def __init__(self, label_M: np.ndarray, num_classes: int, device: str, each: Each) -> None:
        self._label_M, self._classes, self._device, self._each = label_M, num_classes, device, each
        self._groups = Groups(label_M, num_classes, device) if num_classes <= FEW else None
        self._known: dict[Pair, float] = {}  # fits without the head, which the next round need not try
        self._last: Pair | None = None

    def choose(self, prompts_MC: Any, head_MC: Any) -> Pair:
        """(a, b)"""
        if self._groups is not None:
            views: _WholeRows | _NearestClasses = _WholeRows(self._groups, prompts_MC, head_MC)
            fits = self._tried(views, {}, [(a, b) for b in PROMPTS for a in HEAD if a or b])
        else:
            views = _NearestClasses(prompts_MC, head_MC, self._label_M, self._each)
            fits = self._walk(views)
        self._known = {pair: fit for pair, fit in fits.items() if not pair[0]}
        self._last = _best(fits)
        return self._last

    def _walk(self, views: _NearestClasses) -> dict[Pair, float]:
        start = [self._last] if self._last else [(HEAD[j], PROMPTS[i]) for i, j in SPREAD]
        fits = self._tried(views, {}, start)
        while todo := [pair for pair in _around(_best(fits)) if pair not in fits]:
            fits = self._tried(views, fits, todo)
        return fits

    def _tried(self, views: Any, fits: dict[Pair, float], pairs: list[Pair]) -> dict[Pair, float]:
        """Threads try pairs side by side."""
        unknown = [pair for pair in pairs if pair not in self._known]
        found = {pair: self._known[pair] for pair in pairs if pair in self._known}
        return fits | found | dict(zip(unknown, self._each(views.fit, unknown)))


def _best(fits: dict[Pair, float]) -> Pair:
    """In the grid's order, so that it does not matter in which one they were tried."""
    best, chosen = -np.inf, (0.0, 1.0)
    for a, b in sorted(fits, key=lambda pair: (pair[1], pair[0])):
        if fits[a, b] > best + BETTER:
            best, chosen = fits[a, b], (a, b)
    return chosen


def _around(pair: Pair) -> Iterable[Pair]:
    i, j = HEAD.index(pair[0]), PROMPTS.index(pair[1])
    for a in HEAD[max(i - 1, 0) : i + 2]:
        for b in PROMPTS[max(j - 1, 0) : j + 2]:
            if a or b:
                yield a, b


class _WholeRows:
    """All classes of each row."""

    def __init__(self, groups: Groups, prompts_MC: Any, head_MC: Any) -> None:
        self._groups = groups
        self._prompts = dict(zip(PROMPTS, _powers(groups.placed(prompts_MC), PROMPTS)))
        self._head = dict(zip(HEAD, _powers(groups.placed(head_MC), HEAD)))

    def fit(self, pair: Pair) -> float:
        """Mean ln P(given label)."""
        a, b = pair
        q_RC = self._prompts[b] * self._head[a]
        q_RC /= q_RC.sum(axis=1)[:, None]
        return fit_channel(Whole(self._groups, q_RC), ALONE, iterations=ITERATIONS).mean_log


class _NearestClasses:
    """Of each row K classes, a class once; see the head of this file. _pair_MK numbers the pairs (class, given label)
    that occur, first the O of different ones, then those of a class with itself."""

    def __init__(self, prompts_MC: Any, head_MC: Any, label_M: np.ndarray, each: Each) -> None:
        classes = prompts_MC.shape[1]

        def beside(values: np.ndarray) -> Any:
            return as_array_like(values, prompts_MC)

        near = [to_numpy(highest(view_MC, NEAREST)) for view_MC in (prompts_MC, head_MC)]
        class_MK = np.sort(np.concatenate([label_M[:, None], *near], axis=1), axis=1)
        again_MK = np.concatenate([np.zeros((len(label_M), 1), bool), class_MK[:, 1:] == class_MK[:, :-1]], axis=1)
        pair_U, pair_MK = np.unique(class_MK * classes + label_M[:, None], return_inverse=True)
        order_U = np.argsort(pair_U // classes == pair_U % classes, kind="stable")
        true_U, given_U = np.divmod(pair_U[order_U], classes)
        place_U = np.argsort(order_U).astype(np.int32)
        self._classes, self._label_M = classes, beside(label_M)
        self._class_MK, self._once_MK = beside(class_MK), beside(~again_MK)
        self._pair_MK, self._pairs = beside(place_U[pair_MK.reshape(class_MK.shape)]), len(pair_U)
        others = np.count_nonzero(true_U != given_U)
        self._true_O, self._given_O, self._own = (
            beside(part) for part in (true_U[:others], given_U[:others], true_U[others:])
        )
        row_M1 = numbers(prompts_MC)[:, None]
        self._prompts_MK, self._head_MK = prompts_MC[row_M1, self._class_MK], head_MC[row_M1, self._class_MK]
        parts = each(lambda tile: _totals(prompts_MC[tile], head_MC[tile]), _tiles(prompts_MC))
        self._total_MBA = namespace(prompts_MC).concat(list(parts))

    def fit(self, pair: Pair) -> float:
        """Mean ln P(given label)."""
        q_MK, rest_M = self._likelihood(pair)
        base_O, rest_C = self._confused(q_MK)
        products = Products(self._pair_MK, single(q_MK), self._pairs)
        rest_M = rest_M * rest_C[self._label_M]
        xp, true_O, count = namespace(q_MK), self._true_O, len(self._true_O)
        error_C, share, other_O = rest_C * 0.0 + 0.2, 0.2, base_O
        for step in range(ITERATIONS + 1):
            rate_U = xp.concat([error_C[true_O] * other_O, 1 - error_C[self._own]])
            total_M = (double(products.totals(single(rate_U))) + share * rest_M).clip(TINY)
            if step == ITERATIONS:
                break
            rate_U *= products.sums(single(1.0 / total_M))
            left = float((share * rest_M / total_M).sum()) / self._classes
            wrong_C, right_C = self._by_class(true_O, rate_U[:count]) + left, self._by_class(self._own, rate_U[count:])
            share = float(wrong_C.sum() / (wrong_C.sum() + right_C.sum()))
            error_C = (wrong_C + ALPHA * share) / (wrong_C + right_C + ALPHA)
            other_O = (rate_U[:count] + ALPHA * base_O) / (wrong_C + ALPHA)[true_O]
        return float(xp.log(total_M).mean())

    def _likelihood(self, pair: Pair) -> tuple[Any, Any]:
        """Float64 q (M, K), and what is left of each row."""
        a, b = pair
        q_MK = namespace(self._head_MK).exp(double(self._prompts_MK) * b + double(self._head_MK) * a)
        q_MK *= self._once_MK
        q_MK /= double(self._total_MBA[:, PROMPTS.index(b), HEAD.index(a)])[:, None]
        return q_MK, (1 - q_MK.sum(axis=1)).clip(0.0)

    def _confused(self, q_MK: Any) -> tuple[Any, Any]:
        """What q takes a class for: of each pair (class, other), and of each label the mean over the classes. What is
        left of a row is spread evenly, which adds (left[z] + left[y]) / C + `even` at each place of Σ q qᵀ."""
        agree_CC, left_C, squares = agreement(self._class_MK, q_MK, self._classes)
        even, diagonal = squares / self._classes**2, numbers(agree_CC)
        left_C /= self._classes
        agree_CC[diagonal, diagonal] = 0.0
        others = self._classes - 1
        sum_C = (agree_CC.sum(axis=1) + left_C.sum() + (others - 1) * left_C + even * others).clip(1e-12)
        share_C = 1.0 / sum_C
        mean_C = share_C @ agree_CC + (share_C @ left_C) + share_C.sum() * left_C
        mean_C += (share_C.sum() - share_C) * even - 2 * share_C * left_C
        true_O, given_O = self._true_O, self._given_O
        of_pair_O = agree_CC[true_O, given_O] + left_C[true_O] + left_C[given_O] + even
        return of_pair_O * share_C[true_O], mean_C / self._classes

    def _by_class(self, class_O: Any, values_O: Any) -> Any:
        return namespace(values_O).bincount(class_O, values_O, minlength=self._classes)


def _totals(prompts_BC: Any, head_BC: Any) -> Any:
    """(B, len(PROMPTS), len(HEAD)): Σ_z exp(b L + a G). At least 1e-30, as L is and G's largest is 0."""
    xp = namespace(prompts_BC)
    of_head = _powers(head_BC, HEAD)
    rows = [
        [xp.linalg.vecdot(one_BC, other_BC, axis=1) for other_BC in of_head] for one_BC in _powers(prompts_BC, PROMPTS)
    ]
    return xp.stack([xp.stack(row, axis=1) for row in rows], axis=1)


def _powers(view_BC: Any, weights: Iterable[float]) -> list[Any]:
    """exp(weight · view) of each weight, a multiple of UNIT: powers cost a tenth of what as many exponentials do."""
    found = {0: view_BC * 0.0 + 1.0, 1: namespace(view_BC).exp(view_BC * UNIT)}

    def power(count: int) -> Any:
        if count not in found:
            half = power(count // 2)
            found[count] = half * half * found[1] if count % 2 else half * half
        return found[count]

    return [power(round(weight / UNIT)) for weight in weights]


def _tiles(values_MC: Any) -> list[slice]:
    rows = max(1, TILE // max(values_MC.shape[1], 1))
    return [slice(start, start + rows) for start in range(0, len(values_MC), rows)]
