"""Two-component Gaussian mixtures in one dimension, one per class, all classes at once.

In: values grouped by class, ragged. Out: weights, means, variances (C, 2) in float64, component 0 the one that the
start put lower. Same update, same stopping rule as scikit-learn's GaussianMixture: an E step, an M step, stop when the
mean log-likelihood of the E step changed by less than `tol` or after `max_iter`. The start is the exact 1-D 2-means
split (scikit-learn: a random k-means), so a run depends on nothing but its data.

`mixture_em` takes the fast path of the device: one Triton program per class on CUDA, padded tiles on a CPU.
`mixture_em_reference` is the plain loop over classes that both are tested against. Leaves nothing on disk.
"""

from __future__ import annotations

import itertools
import math

import torch

from cleanctl_kernels.paths import uses_triton
from cleanctl_kernels.types import LOG_2PI, TINY_MASS, Mixtures, Ragged, empty_mixtures

TILE_VALUES = 1 << 17  # values of one tile: a handful of float64 temporaries of this size stay in the cache


def mixture_em(
    ragged: Ragged,
    *,
    tol: float = 1e-3,
    max_iter: int = 100,
    reg_covar: float = 1e-6,
    start: Mixtures | None = None,
) -> Mixtures:
    """value_N: float32 or float64, finite. `start` replaces the 2-means start (its weight, mean, variance)."""
    if uses_triton(ragged.value_N.device.type):
        from cleanctl_kernels.mixture_triton import mixture_em_triton

        return mixture_em_triton(ragged, tol=tol, max_iter=max_iter, reg_covar=reg_covar, start=start)
    return mixture_em_cpu(ragged, tol=tol, max_iter=max_iter, reg_covar=reg_covar, start=start)


def mixture_em_reference(
    ragged: Ragged,
    *,
    tol: float = 1e-3,
    max_iter: int = 100,
    reg_covar: float = 1e-6,
    start: Mixtures | None = None,
) -> Mixtures:
    """One class after the other, written as the textbook has it."""
    offsets = ragged.offset_C1.tolist()
    result = empty_mixtures(len(offsets) - 1, ragged.value_N.device)
    for k, (low, high) in enumerate(itertools.pairwise(offsets)):
        if low == high:
            continue
        x = ragged.value_N[low:high].double()
        theta = _start_of(x, reg_covar) if start is None else (start.weight[k], start.mean[k], start.variance[k])
        bound, iterations, converged = -math.inf, 0, False
        while iterations < max_iter and not converged:
            weight, mean, variance = theta
            log_joint = weight.log() - 0.5 * (LOG_2PI + variance.log() + (x[:, None] - mean) ** 2 / variance)
            log_norm = torch.logsumexp(log_joint, dim=1)
            theta = _m_step(x, torch.exp(log_joint - log_norm[:, None]), reg_covar)
            previous, bound = bound, float(log_norm.mean())
            converged = abs(bound - previous) < tol
            iterations += 1
        result.weight[k], result.mean[k], result.variance[k] = theta
        result.log_likelihood[k] = bound
        result.iterations[k] = iterations
        result.converged[k] = converged
    return result


def _start_of(x: torch.Tensor, reg_covar: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    ordered = x.sort().values
    if len(ordered) < 2:
        lower = torch.ones(1, dtype=torch.bool, device=x.device)
    else:
        total = ordered.cumsum(0)[:-1]
        size = torch.arange(1, len(ordered), dtype=torch.float64, device=x.device)
        between = total**2 / size + (ordered.sum() - total) ** 2 / (len(ordered) - size)
        lower = torch.arange(len(ordered), device=x.device) <= between.argmax()
    return _m_step(ordered, torch.stack([lower, ~lower], dim=1).double(), reg_covar)


def _m_step(x: torch.Tensor, resp: torch.Tensor, reg_covar: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    mass = resp.sum(dim=0) + TINY_MASS
    mean = (resp * x[:, None]).sum(dim=0) / mass
    variance = (resp * (x[:, None] - mean) ** 2).sum(dim=0) / mass + reg_covar
    return mass / mass.sum(), mean, variance


def mixture_em_cpu(
    ragged: Ragged,
    *,
    tol: float = 1e-3,
    max_iter: int = 100,
    reg_covar: float = 1e-6,
    start: Mixtures | None = None,
) -> Mixtures:
    """Classes of like size side by side in padded tiles, so that one operation serves many of them."""
    offset_C1 = ragged.offset_C1.long()
    size_C = offset_C1.diff()
    result = empty_mixtures(len(size_C), ragged.value_N.device)
    for class_G in _groups(size_C):
        x_GL, inside_GL = _pad(ragged.value_N, offset_C1[class_G], size_C[class_G])
        if start is None:
            theta = _two_means(x_GL, inside_GL, size_C[class_G].double(), reg_covar)
        else:
            theta = torch.stack([start.weight[class_G], start.mean[class_G], start.variance[class_G]])
        fitted = _fit_group(x_GL, inside_GL, theta, tol=tol, max_iter=max_iter, reg_covar=reg_covar)
        for column, values in zip(result, fitted):
            column[class_G] = values
    return result


def _groups(size_C: torch.Tensor) -> list[torch.Tensor]:
    """Classes that have values, by falling size, cut so that a padded group holds about TILE_VALUES."""
    order_C = torch.argsort(size_C, descending=True, stable=True)
    order_C = order_C[size_C[order_C] > 0]
    groups, first = [], 0
    while first < len(order_C):
        rows = max(1, TILE_VALUES // int(size_C[order_C[first]]))
        groups.append(order_C[first : first + rows])
        first += rows
    return groups


def _pad(value_N: torch.Tensor, first_G: torch.Tensor, size_G: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(G, L) float64, each row ascending with its largest value repeated as padding, and 1.0 where a value is real."""
    column_L = torch.arange(int(size_G.max()), device=size_G.device)
    inside_GL = column_L < size_G[:, None]
    x_GL = value_N[(first_G[:, None] + column_L).clamp_(max=len(value_N) - 1)].double()
    x_GL = x_GL.masked_fill_(~inside_GL, math.inf).sort(dim=1).values
    largest_G1 = x_GL.gather(1, size_G[:, None] - 1)
    return torch.where(inside_GL, x_GL, largest_G1), inside_GL.double()


def _two_means(x_GL: torch.Tensor, inside_GL: torch.Tensor, size_G: torch.Tensor, reg_covar: float) -> torch.Tensor:
    """(3, G, 2) weight, mean, variance of the split of each row into two runs with least squared error."""
    if x_GL.shape[1] < 2:
        lower_GL = inside_GL.clone()
    else:
        prefix_GL = (x_GL * inside_GL).cumsum(dim=1)
        count_L = torch.arange(1, x_GL.shape[1], dtype=torch.float64, device=x_GL.device)
        rest_GL = (size_G[:, None] - count_L).clamp_(min=1.0)
        prefix, total = prefix_GL[:, :-1], prefix_GL[:, -1:]
        between_GL = prefix**2 / count_L + (total - prefix) ** 2 / rest_GL
        between_GL.masked_fill_(count_L >= size_G[:, None], -math.inf)
        cut_G1 = between_GL.argmax(dim=1, keepdim=True)
        lower_GL = (torch.arange(x_GL.shape[1], device=x_GL.device) <= cut_G1) * inside_GL
    # Two passes: a variance from E[x²] - E[x]² loses its digits when values lie close together.
    parts = []
    for mask_GL in (lower_GL, inside_GL - lower_GL):
        mass_G = mask_GL.sum(dim=1) + TINY_MASS
        mean_G = (mask_GL * x_GL).sum(dim=1) / mass_G
        variance_G = (mask_GL * (x_GL - mean_G[:, None]) ** 2).sum(dim=1) / mass_G + reg_covar
        parts.append(torch.stack([mass_G, mean_G, variance_G]))
    theta = torch.stack(parts, dim=2)
    theta[0] /= theta[0].sum(dim=1, keepdim=True)
    return theta


def _fit_group(
    x_GL: torch.Tensor, inside_GL: torch.Tensor, theta: torch.Tensor, *, tol: float, max_iter: int, reg_covar: float
) -> tuple[torch.Tensor, ...]:
    """EM of the rows of one padded group; rows that have converged leave the tile."""
    # Moments are taken around the row's mean, where they lose the fewest digits; means are shifted back at the end.
    size_G = inside_GL.sum(dim=1)
    shift_G = (x_GL * inside_GL).sum(dim=1) / size_G
    x_GL = x_GL - shift_G[:, None]
    basis_GL3 = torch.stack([inside_GL, x_GL * inside_GL, x_GL * x_GL * inside_GL], dim=2)
    total_G3 = basis_GL3.sum(dim=1)
    theta = theta.clone()
    theta[1] -= shift_G[:, None]
    groups = len(size_G)
    bound_G = torch.full((groups,), -math.inf, dtype=torch.float64, device=size_G.device)
    iterations_G = torch.zeros(groups, dtype=torch.int32, device=size_G.device)
    converged_G = torch.zeros(groups, dtype=torch.bool, device=size_G.device)
    active = torch.arange(groups, device=size_G.device)
    scratch = (torch.empty_like(x_GL), torch.empty_like(x_GL))
    for _ in range(max_iter):
        fresh, likelihood = _em_step(basis_GL3, total_G3, theta[:, active], scratch, reg_covar)
        theta[:, active] = fresh
        iterations_G[active] += 1
        done = (likelihood - bound_G[active]).abs() < tol
        bound_G[active] = likelihood
        if bool(done.any()):
            converged_G[active[done]] = True
            active, basis_GL3, total_G3 = active[~done], basis_GL3[~done], total_G3[~done]
            scratch = (scratch[0][: len(active)], scratch[1][: len(active)])
        if not len(active):
            break
    theta[1] += shift_G[:, None]
    return theta[0], theta[1], theta[2], bound_G, iterations_G, converged_G


def _em_step(
    basis_GL3: torch.Tensor,
    total_G3: torch.Tensor,
    theta: torch.Tensor,
    scratch: tuple[torch.Tensor, torch.Tensor],
    reg_covar: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """One E and M step → new theta and the mean log-likelihood under the old one.

    With log densities quadratic in x, the difference of the two is one quadratic d(x), the responsibility of
    component 1 is sigmoid(d), and the log-likelihood is Σ log-density 0 (a sum of moments) + Σ softplus(d).
    """
    weight_G2, mean_G2, variance_G2 = theta
    c0 = weight_G2.log() - 0.5 * (LOG_2PI + variance_G2.log() + mean_G2**2 / variance_G2)
    c1, c2 = mean_G2 / variance_G2, -0.5 / variance_G2
    quadratic_G23 = torch.stack([c0, c1, c2], dim=2)
    d_GL, soft_GL = scratch
    torch.bmm(basis_GL3, (quadratic_G23[:, 1] - quadratic_G23[:, 0])[:, :, None], out=d_GL[:, :, None])
    torch.abs(d_GL, out=soft_GL)
    soft_GL.neg_().exp_()  # e = exp(-|d|) serves both the responsibility and the softplus
    resp_GL = torch.where(d_GL > 0, 1.0, soft_GL) / (1.0 + soft_GL)
    soft_GL.log1p_().add_(d_GL.clamp_(min=0.0))
    first_G3 = torch.bmm(resp_GL[:, None, :], basis_GL3).squeeze(1)
    size_G = total_G3[:, 0]
    padding_G = (soft_GL.shape[1] - size_G) * math.log(2.0)  # d is 0 where the basis is 0
    likelihood_G = ((quadratic_G23[:, 0] * total_G3).sum(dim=1) + soft_GL.sum(dim=1) - padding_G) / size_G
    moments_G23 = torch.stack([total_G3 - first_G3, first_G3], dim=1)
    mass_G2 = moments_G23[:, :, 0].clamp(min=0.0) + TINY_MASS
    fresh_mean_G2 = moments_G23[:, :, 1] / mass_G2
    spread_G2 = moments_G23[:, :, 2] / mass_G2 - fresh_mean_G2**2
    fresh = torch.stack(
        [mass_G2 / mass_G2.sum(dim=1, keepdim=True), fresh_mean_G2, spread_G2.clamp_(min=0.0) + reg_covar]
    )
    return fresh, likelihood_G
