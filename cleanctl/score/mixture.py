"""Which samples of each class belong to the clean component: per-class mixtures on scaled log-probabilities.

In: ln of the given label's probability (N,) and labels (N,). Out: posterior of the clean component (N,), the component
of the larger mean (docs/method.md A.5), with every corner case of docs/method.md A.7 counted in a report. Beside both
it holds the order by class and the temporaries of some neighbouring classes. Leaves nothing on disk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from cleanctl_kernels.arrays import Array, as_array, as_array_like, namespace, namespace_on, pick, to_numpy

if TYPE_CHECKING:
    from cleanctl_kernels import Mixtures, Ragged

TOGETHER = 1 << 22  # samples whose float64 temporaries are held at a time
LOG_FLOOR = float(np.log(1e-12))  # stands for ln 0, which would break the scaling


@dataclass(frozen=True, kw_only=True)
class LossScores:
    """posterior_N: float32 in [0, 1], of the clean component. scaled_N: float32 in [0, 1], min-max within the class.

    constant: classes of two samples or more whose scores are all equal, wholly accepted. single: classes of one
    sample, accepted. absent: classes without samples. not_monotone: samples whose posterior is lower than that of a
    lower score in their class (unequal variances). iterations_C: int32. not_converged: classes stopped by max_iter.
    """

    posterior_N: np.ndarray
    scaled_N: np.ndarray
    constant: tuple[int, ...]
    single: tuple[int, ...]
    absent: tuple[int, ...]
    not_monotone: int
    not_converged: tuple[int, ...]
    mean_C2: np.ndarray = field(repr=False)
    variance_C2: np.ndarray = field(repr=False)
    weight_C2: np.ndarray = field(repr=False)


def loss_scores(
    log_p_label_N: np.ndarray,
    label_N: np.ndarray,
    *,
    num_classes: int,
    device: str = "cpu",
    tol: float = 1e-3,
    max_iter: int = 100,
    reg_covar: float = 1e-6,
) -> LossScores:
    """ℓ = ln P(y), min-max scaled within the given class, then a two-component mixture per class (docs/method.md A.5).

    log_p_label_N: at most 0; see `finite_logs`.
    """
    from cleanctl_kernels import mixture_em

    fit = partial(mixture_em, tol=tol, max_iter=max_iter, reg_covar=reg_covar)
    order_N = to_numpy(namespace_on(device).argsort(as_array(label_N, device), stable=True))
    count_C = np.bincount(label_N, minlength=num_classes)
    offset_C1 = np.concatenate([[0], np.cumsum(count_C)])
    log_N = finite_logs(log_p_label_N)
    posterior_N, scaled_N = np.empty(len(label_N), np.float32), np.empty(len(label_N), np.float32)
    parts = []
    for some in _neighbours(count_C):
        row_M = order_N[offset_C1[some.start] : offset_C1[some.stop]]
        part = _fitted(log_N[row_M], count_C[some], device, fit)
        posterior_N[row_M], scaled_N[row_M] = part.posterior_M, part.scaled_M
        parts.append(part)
    weight_C2, mean_C2, variance_C2, converged_C = map(np.concatenate, zip(*(part.mixtures for part in parts)))
    flat_C = np.concatenate([part.flat_C for part in parts])
    return LossScores(
        posterior_N=posterior_N,
        scaled_N=scaled_N,
        constant=_indices(flat_C & (count_C > 1)),
        single=_indices(count_C == 1),
        absent=_indices(count_C == 0),
        not_monotone=sum(part.falls for part in parts),
        not_converged=_indices((count_C > 1) & ~flat_C & ~converged_C),
        mean_C2=mean_C2,
        variance_C2=variance_C2,
        weight_C2=weight_C2,
    )


@dataclass(frozen=True, kw_only=True)
class _Fitted:
    """Of neighbouring classes, M samples one class after the other. mixtures: weight, mean, variance, converged."""

    posterior_M: np.ndarray
    scaled_M: np.ndarray
    flat_C: np.ndarray
    falls: int
    mixtures: tuple[np.ndarray, ...]


def _neighbours(count_C: np.ndarray) -> Iterator[slice]:
    """Classes one after the other, as many at a time as have TOGETHER samples, one at least."""
    first, held = 0, 0
    for k, count in enumerate(count_C.tolist()):
        if held and held + count > TOGETHER:
            yield slice(first, k)
            first, held = k, 0
        held += count
    yield slice(first, len(count_C))


def _fitted(log_M: np.ndarray, count_C: np.ndarray, device: str, fit: Callable[[Ragged], Mixtures]) -> _Fitted:
    """log_M: finite, one class after the other. All but counts of classes is computed, and sorted, on the device."""
    from cleanctl_kernels import Ragged

    log_M = as_array(log_M.astype(np.float64), device)
    class_M = as_array(np.repeat(np.arange(len(count_C)), count_C), device)
    xp, order_M = namespace(log_M), ordered_in_class(log_M, class_M)
    scaled_M, flat_C = _scaled(log_M[order_M], class_M, count_C)
    fit_C = (count_C > 1) & ~flat_C
    fit_M = as_array(fit_C, device)[class_M]
    fit_offset = np.concatenate([[0], np.cumsum(np.where(fit_C, count_C, 0))])
    found = fit(Ragged(scaled_M[fit_M], as_array(fit_offset.astype(np.int64), device)))
    posterior_M = xp.ones_like(scaled_M)
    posterior_M[fit_M] = clean_posterior(scaled_M[fit_M], class_M[fit_M], found)
    return _Fitted(
        posterior_M=_unsorted(posterior_M, order_M),
        scaled_M=_unsorted(scaled_M, order_M),
        flat_C=flat_C,
        falls=count_falls(posterior_M, class_M),
        mixtures=tuple(map(to_numpy, (*found[:3], found.converged))),
    )


def ordered_in_class(score_N: Array, label_N: Array) -> Array:
    """(N,) rows by label, then by score, on the device that holds them."""
    if isinstance(score_N, np.ndarray):
        return np.lexsort((score_N, label_N))
    by_score_N = score_N.argsort(stable=True)
    return by_score_N[label_N[by_score_N].argsort(stable=True)]


def _scaled(ascending_N: Array, class_N: Array, count_C: np.ndarray) -> tuple[Array, np.ndarray]:
    """As `scaled_in_class`, of rows by class and then by score: a class's lowest is its first, its highest its last."""
    here_C, stop_C = np.flatnonzero(count_C), np.cumsum(count_C)
    low_C, high_C = np.zeros((2, len(count_C)))
    low_C[here_C] = to_numpy(ascending_N[as_array_like((stop_C - count_C)[here_C], ascending_N)])
    high_C[here_C] = to_numpy(ascending_N[as_array_like((stop_C - 1)[here_C], ascending_N)])
    flat_C = (high_C == low_C) & (count_C > 0)
    span_C = np.where(high_C > low_C, high_C - low_C, 1.0)
    low_N, span_N, flat_N = (as_array_like(one, ascending_N)[class_N] for one in (low_C, span_C, flat_C))
    return namespace(ascending_N).where(flat_N, 1.0, (ascending_N - low_N) / span_N), flat_C


def _unsorted(values_N: Array, order_N: Array) -> np.ndarray:
    """float32, each at the place that the order took it from."""
    xp = namespace(values_N)
    result_N = xp.empty_like(values_N, dtype=xp.float32)
    result_N[order_N] = xp.astype(values_N, xp.float32)
    return to_numpy(result_N)


def finite_logs(log_p_N: np.ndarray) -> np.ndarray:
    """The same with -inf, the logarithm of a probability of 0, at ln 1e-12, or at the lowest other one if that is
    lower."""
    floor = min(float(np.min(log_p_N, where=np.isfinite(log_p_N), initial=0.0)), LOG_FLOOR)
    return np.maximum(log_p_N, np.asarray(floor, log_p_N.dtype))


def clean_posterior(scaled_N: Array, class_N: Array, mixtures: Mixtures) -> Array:
    """Posterior of the component of the larger mean of each value's class, which must have been fitted."""
    xp, mean_C2 = namespace(scaled_N), mixtures.mean
    clean_C = xp.astype(mean_C2[:, 1] > mean_C2[:, 0], xp.int64)

    def density(component_C: Array) -> Array:
        w, m, v = (pick(values_C2, component_C)[class_N] for values_C2 in mixtures[:3])
        return xp.log(w) - 0.5 * (xp.log(v) + (scaled_N - m) ** 2 / v)

    with np.errstate(over="ignore", divide="ignore"):
        return 1.0 / (1.0 + xp.exp(density(1 - clean_C) - density(clean_C)))


def scaled_in_class(score_N: np.ndarray, label_N: np.ndarray, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """(N,) float64 min-max scaled to [0, 1] inside each given class, 1 where a class is constant; (C,) bool which
    classes are, those of one sample among them (docs/method.md A.5, A.7). score_N: finite."""
    score_N = score_N.astype(np.float64)
    low_C, high_C = np.full(num_classes, np.inf), np.full(num_classes, -np.inf)
    np.minimum.at(low_C, label_N, score_N)
    np.maximum.at(high_C, label_N, score_N)
    flat_C = high_C == low_C
    span_C = np.where(high_C > low_C, high_C - low_C, 1.0)
    scaled_N = (score_N - low_C[label_N]) / span_C[label_N]
    scaled_N[flat_C[label_N]] = 1.0
    return scaled_N, flat_C


def count_falls(posterior_N: Array, class_N: Array) -> int:
    """Samples whose posterior is below that of a lower score of their class. Rows by class, then by score."""
    # A class's offset lifts its posteriors above those before it, so one running maximum serves all classes.
    lifted_N = posterior_N + 2.0 * class_N
    highest_N = np.maximum.accumulate(lifted_N) if isinstance(lifted_N, np.ndarray) else lifted_N.cummax(0).values
    return int(namespace(lifted_N).sum(highest_N > lifted_N + 1e-9))


def _indices(mask_C: np.ndarray) -> tuple[int, ...]:
    return tuple(np.flatnonzero(mask_C).tolist())
