"""Two-component Gaussian mixtures in one dimension, one per class, all classes at once.

In: values grouped by class, ragged. Out: weights, means, variances (C, 2) in float64, component 0 the one that the
start put lower. Same update, same stopping rule as scikit-learn's GaussianMixture: an E step, an M step, stop when the
mean log-likelihood of the E step changed by less than `tol` or after `max_iter`. The start is the exact 1-D 2-means
split (scikit-learn: a random k-means), so a run depends on nothing but its data.

`mixture_em` takes the fast path of the device: one Triton program per class on CUDA, else padded tiles, in numpy and
its threads on a CPU. `mixture_em_reference` is the plain loop over classes that both are tested against. Leaves nothing
on disk.
"""

from __future__ import annotations

import itertools
import math
from functools import partial

import numpy as np

from cleanctl_kernels.arrays import Array, as_array_like, at_least_, device_type, logsumexp, namespace, pick, to_numpy
from cleanctl_kernels.paths import uses_triton
from cleanctl_kernels.threads import in_threads
from cleanctl_kernels.types import LOG_2PI, TINY_MASS, Mixtures, Ragged, empty_mixtures

TILE_VALUES = {"cpu": 1 << 14, "cuda": 1 << 20}  # values of one tile: a handful of float64 temporaries fit the cache
FACTORS = 512  # numbers between 1 and 2 whose product is finite in float64


def mixture_em(
    ragged: Ragged,
    *,
    tol: float = 1e-3,
    max_iter: int = 100,
    reg_covar: float = 1e-6,
    start: Mixtures | None = None,
) -> Mixtures:
    """value_N: float32 or float64, finite. `start` replaces the 2-means start (its weight, mean, variance)."""
    if uses_triton(device_type(ragged.value_N)):
        from cleanctl_kernels.mixture_triton import mixture_em_triton

        return mixture_em_triton(ragged, tol=tol, max_iter=max_iter, reg_covar=reg_covar, start=start)
    return mixture_em_tiles(ragged, tol=tol, max_iter=max_iter, reg_covar=reg_covar, start=start)


def mixture_em_reference(
    ragged: Ragged,
    *,
    tol: float = 1e-3,
    max_iter: int = 100,
    reg_covar: float = 1e-6,
    start: Mixtures | None = None,
) -> Mixtures:
    """One class after the other, written as the textbook has it."""
    xp, offsets = namespace(ragged.value_N), ragged.offset_C1.tolist()
    result = empty_mixtures(len(offsets) - 1, ragged.value_N)
    for k, (low, high) in enumerate(itertools.pairwise(offsets)):
        if low == high:
            continue
        x = xp.astype(ragged.value_N[low:high], xp.float64)
        theta = _start_of(x, reg_covar) if start is None else (start.weight[k], start.mean[k], start.variance[k])
        bound, iterations, converged = -math.inf, 0, False
        while iterations < max_iter and not converged:
            weight, mean, variance = theta
            log_joint = xp.log(weight) - 0.5 * (LOG_2PI + xp.log(variance) + (x[:, None] - mean) ** 2 / variance)
            log_norm = logsumexp(log_joint, axis=1)
            theta = _m_step(x, xp.exp(log_joint - log_norm[:, None]), reg_covar)
            previous, bound = bound, float(xp.mean(log_norm))
            converged = abs(bound - previous) < tol
            iterations += 1
        result.weight[k], result.mean[k], result.variance[k] = theta
        result.log_likelihood[k] = bound
        result.iterations[k] = iterations
        result.converged[k] = converged
    return result


def _start_of(x: Array, reg_covar: float) -> tuple[Array, Array, Array]:
    xp = namespace(x)
    ordered, place = xp.sort(x), xp.arange(len(x), device=x.device)
    if len(ordered) < 2:
        lower = place == 0
    else:
        total, size = xp.cumulative_sum(ordered)[:-1], place[1:]
        between = total**2 / size + (xp.sum(ordered) - total) ** 2 / (len(ordered) - size)
        lower = place <= xp.argmax(between)
    return _m_step(ordered, xp.astype(xp.stack([lower, ~lower], axis=1), xp.float64), reg_covar)


def _m_step(x: Array, resp: Array, reg_covar: float) -> tuple[Array, Array, Array]:
    xp = namespace(x)
    mass = xp.sum(resp, axis=0) + TINY_MASS
    mean = xp.sum(resp * x[:, None], axis=0) / mass
    variance = xp.sum(resp * (x[:, None] - mean) ** 2, axis=0) / mass + reg_covar
    return mass / xp.sum(mass), mean, variance


def mixture_em_tiles(
    ragged: Ragged,
    *,
    tol: float = 1e-3,
    max_iter: int = 100,
    reg_covar: float = 1e-6,
    start: Mixtures | None = None,
) -> Mixtures:
    """Classes of like size side by side in padded tiles, so that one operation serves many of them; on a CPU several
    tiles at a time."""
    xp, value_N = namespace(ragged.value_N), ragged.value_N
    size_C = to_numpy(ragged.offset_C1[1:] - ragged.offset_C1[:-1])
    result = empty_mixtures(len(size_C), value_N)
    device = device_type(value_N)
    fit = partial(_fitted, ragged, start, tol=tol, max_iter=max_iter, reg_covar=reg_covar)
    threads = None if xp is np else 1
    for class_G, fitted in in_threads(fit, _groups(size_C, TILE_VALUES[device]), threads=threads):
        for column, values in zip(result, fitted):
            column[class_G] = values
    return result


def _fitted(
    ragged: Ragged, start: Mixtures | None, class_G: np.ndarray, *, tol: float, max_iter: int, reg_covar: float
) -> tuple[Array, tuple[Array, ...]]:
    """The classes of one group, and their mixtures."""
    offset_C1 = ragged.offset_C1
    xp, class_G = namespace(ragged.value_N), as_array_like(class_G, ragged.value_N)
    size_G = offset_C1[class_G + 1] - offset_C1[class_G]
    x_GL, inside_GL = _pad(ragged.value_N, offset_C1[class_G], size_G)
    if start is None:
        theta = _two_means(x_GL, inside_GL, xp.astype(size_G, xp.float64), reg_covar)
    else:
        theta = xp.stack([start.weight[class_G], start.mean[class_G], start.variance[class_G]])
    return class_G, _fit_group(x_GL, inside_GL, theta, tol=tol, max_iter=max_iter, reg_covar=reg_covar)


def _groups(size_C: np.ndarray, values: int) -> list[np.ndarray]:
    """Classes that have values, by falling size, cut so that a padded group holds about that many."""
    order_C = np.argsort(-size_C, kind="stable")
    order_C = order_C[size_C[order_C] > 0]
    groups, first = [], 0
    while first < len(order_C):
        rows = max(1, values // int(size_C[order_C[first]]))
        groups.append(order_C[first : first + rows])
        first += rows
    return groups


def _pad(value_N: Array, first_G: Array, size_G: Array) -> tuple[Array, Array]:
    """(G, L) float64, each row ascending with its largest value repeated as padding, and 1.0 where a value is real."""
    xp = namespace(value_N)
    column_L = xp.arange(int(xp.max(size_G)), device=value_N.device)
    inside_GL = column_L < size_G[:, None]
    place_GL = xp.minimum(first_G[:, None] + column_L, (first_G + size_G - 1)[:, None])
    x_GL = xp.astype(value_N[place_GL], xp.float64)
    x_GL[~inside_GL] = math.inf
    x_GL = xp.sort(x_GL, axis=1)
    largest_G = pick(x_GL, size_G - 1)
    return xp.where(inside_GL, x_GL, largest_G[:, None]), xp.astype(inside_GL, xp.float64)


def _two_means(x_GL: Array, inside_GL: Array, size_G: Array, reg_covar: float) -> Array:
    """(3, G, 2) weight, mean, variance of the split of each row into two runs with least squared error."""
    xp = namespace(x_GL)
    if x_GL.shape[1] < 2:
        lower_GL = xp.asarray(inside_GL, copy=True)
    else:
        prefix_GL = xp.cumulative_sum(x_GL * inside_GL, axis=1)
        column_L = xp.arange(x_GL.shape[1], device=x_GL.device)
        count_L = column_L[1:]
        rest_GL = at_least_(size_G[:, None] - count_L, 1.0)
        prefix, total = prefix_GL[:, :-1], prefix_GL[:, -1:]
        between_GL = prefix**2 / count_L + (total - prefix) ** 2 / rest_GL
        between_GL = xp.where(count_L >= size_G[:, None], -math.inf, between_GL)
        cut_G1 = xp.argmax(between_GL, axis=1)[:, None]
        lower_GL = xp.where(column_L <= cut_G1, inside_GL, 0.0)
    # Two passes: a variance from E[x²] - E[x]² loses its digits when values lie close together.
    parts = []
    for mask_GL in (lower_GL, inside_GL - lower_GL):
        mass_G = xp.sum(mask_GL, axis=1) + TINY_MASS
        mean_G = xp.sum(mask_GL * x_GL, axis=1) / mass_G
        variance_G = xp.sum(mask_GL * (x_GL - mean_G[:, None]) ** 2, axis=1) / mass_G + reg_covar
        parts.append(xp.stack([mass_G, mean_G, variance_G]))
    theta = xp.stack(parts, axis=2)
    theta[0] /= xp.sum(theta[0], axis=1, keepdims=True)
    return theta


def _fit_group(
    x_GL: Array, inside_GL: Array, theta: Array, *, tol: float, max_iter: int, reg_covar: float
) -> tuple[Array, ...]:
    """EM of the rows of one padded group; rows that have converged leave the tile."""
    xp, device = namespace(x_GL), x_GL.device
    # Moments are taken around the row's mean, where they lose the fewest digits; means are shifted back at the end.
    size_G = xp.sum(inside_GL, axis=1)
    shift_G = xp.sum(x_GL * inside_GL, axis=1) / size_G
    x_GL = (x_GL - shift_G[:, None]) * inside_GL
    basis = (inside_GL, x_GL, x_GL * x_GL)
    total_3G = xp.stack([xp.sum(one, axis=1) for one in basis])
    theta = xp.asarray(theta, copy=True)
    theta[1] -= shift_G[:, None]
    groups = len(size_G)
    bound_G = xp.full((groups,), -math.inf, dtype=xp.float64, device=device)
    iterations_G = xp.zeros(groups, dtype=xp.int32, device=device)
    converged_G = xp.zeros(groups, dtype=xp.bool, device=device)
    active = xp.arange(groups, device=device)
    scratch = xp.empty_like(x_GL), xp.empty_like(x_GL)
    for _ in range(max_iter):
        fresh, likelihood = _em_step(basis, total_3G, theta[:, active], scratch, reg_covar)
        theta[:, active] = fresh
        iterations_G[active] += 1
        done = abs(likelihood - bound_G[active]) < tol
        bound_G[active] = likelihood
        if bool(xp.any(done)):
            converged_G[active[done]] = True
            stays = ~done
            active, total_3G = active[stays], total_3G[:, stays]
            if not len(active):
                break
            basis = tuple(one[stays] for one in basis)
            scratch = scratch[0][: len(active)], scratch[1][: len(active)]
    theta[1] += shift_G[:, None]
    return theta[0], theta[1], theta[2], bound_G, iterations_G, converged_G


def _em_step(
    basis: tuple[Array, ...], total_3G: Array, theta: Array, scratch: tuple[Array, Array], reg_covar: float
) -> tuple[Array, Array]:
    """One E and M step → new theta and the mean log-likelihood under the old one. basis: of each value 1, x, x², zeros
    where padding is, (G, L) each.

    With log densities quadratic in x, the difference of the two is one quadratic d(x), the responsibility of
    component 1 is sigmoid(d), and the log-likelihood is Σ log-density 0 (a sum of moments) + Σ softplus(d).
    """
    xp = namespace(total_3G)
    one_GL, x_GL = basis[:2]
    weight_G2, mean_G2, variance_G2 = theta
    c0 = xp.log(weight_G2) - 0.5 * (LOG_2PI + xp.log(variance_G2) + mean_G2**2 / variance_G2)
    quadratic_3G2 = xp.stack([c0, mean_G2 / variance_G2, -0.5 / variance_G2])
    turn_3G1 = quadratic_3G2[:, :, 1:] - quadratic_3G2[:, :, :1]
    d_GL, soft_GL = scratch
    xp.multiply(x_GL, turn_3G1[2], out=d_GL)
    d_GL += turn_3G1[1]
    d_GL *= x_GL
    d_GL += turn_3G1[0]
    d_GL *= one_GL  # 0 where padding is
    xp.abs(d_GL, out=soft_GL)
    xp.negative(soft_GL, out=soft_GL)
    xp.exp(soft_GL, out=soft_GL)  # e = exp(-|d|) serves both the responsibility and the softplus
    resp_GL = xp.where(d_GL > 0, 1.0, soft_GL)
    soft_GL += 1.0
    resp_GL /= soft_GL
    softplus_G = _sum_of_logs(soft_GL) + xp.sum(at_least_(d_GL, 0.0), axis=1)
    first_3G = xp.stack([xp.linalg.vecdot(resp_GL, one, axis=1) for one in basis])
    size_G = total_3G[0]
    padding_G = (soft_GL.shape[1] - size_G) * math.log(2.0)  # d is 0 where the basis is 0
    likelihood_G = (xp.sum(quadratic_3G2[:, :, 0] * total_3G, axis=0) + softplus_G - padding_G) / size_G
    moments_3G2 = xp.stack([total_3G - first_3G, first_3G], axis=2)
    mass_G2 = at_least_(moments_3G2[0], 0.0) + TINY_MASS
    fresh_mean_G2 = moments_3G2[1] / mass_G2
    spread_G2 = moments_3G2[2] / mass_G2 - fresh_mean_G2**2
    share_G2 = mass_G2 / xp.sum(mass_G2, axis=1, keepdims=True)
    return xp.stack([share_G2, fresh_mean_G2, at_least_(spread_G2, 0.0) + reg_covar]), likelihood_G


def _sum_of_logs(x_GL: Array) -> Array:
    """(G,) Σ ln x of numbers from 1 to 2: the logarithm of products, which costs a multiplication a number."""
    xp, total = namespace(x_GL), 0.0
    for start in range(0, x_GL.shape[1], FACTORS):
        total = total + xp.log(xp.prod(x_GL[:, start : start + FACTORS], axis=1))
    return total
