# mypy: disallow-untyped-defs=False
"""The Triton kernel of `mixture_em`: one program per class runs EM to convergence, all classes in one launch.

The exact 2-means start is found before with segment operations on the device. Moments are float64: means of values
that lie close together keep their digits. Runs on a CPU under TRITON_INTERPRET=1. Leaves nothing on disk.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from cleanctl_kernels.types import LOG_2PI, TINY_MASS, Mixtures, Ragged, empty_mixtures

BLOCK = 512
WARPS = 8  # two values a thread, and no spills on sm_90, where four values take 180 registers and eight all 255
FACTORS = 512  # numbers between 1 and 2 whose product is finite in float64


def mixture_em_triton(
    ragged: Ragged,
    *,
    tol: float = 1e-3,
    max_iter: int = 100,
    reg_covar: float = 1e-6,
    start: Mixtures | None = None,
) -> Mixtures:
    """As `mixture_em`."""
    offset_C1 = ragged.offset_C1.long()
    num_classes = len(offset_C1) - 1
    device = ragged.value_N.device
    result = empty_mixtures(num_classes, ragged.value_N)
    if start is None:
        theta = two_means_ragged(ragged, reg_covar)
    else:
        theta = torch.stack([start.weight, start.mean, start.variance])
    theta = theta.double().contiguous()
    flags = torch.zeros(2, num_classes, dtype=torch.int32, device=device)
    _em_kernel[(num_classes,)](
        ragged.value_N.contiguous(),
        offset_C1,
        theta,
        result.log_likelihood,
        flags,
        num_classes,
        max_iter,
        TOL=tol,
        REG_COVAR=reg_covar,
        TINY=TINY_MASS,
        HALF_LOG_2PI=LOG_2PI / 2,
        BLOCK=BLOCK,
        FACTORS=FACTORS,
        num_warps=WARPS,
        enable_fp_fusion=True,
    )
    empty_C = offset_C1.diff() == 0
    theta[:, empty_C] = torch.nan
    return Mixtures(
        weight=theta[0],
        mean=theta[1],
        variance=theta[2],
        log_likelihood=result.log_likelihood,
        iterations=flags[0],
        converged=flags[1].bool(),
    )


def two_means_ragged(ragged: Ragged, reg_covar: float) -> torch.Tensor:
    """(3, C, 2) weight, mean, variance of the least-squares split of each class, by segment operations."""
    offset_C1 = ragged.offset_C1.long()
    size_C = offset_C1.diff()
    num_classes, device = len(size_C), ragged.value_N.device
    class_N = torch.repeat_interleave(torch.arange(num_classes, device=device), size_C)
    value_N, order_N = ragged.value_N.double().sort()
    by_class_N = class_N[order_N].sort(stable=True).indices
    value_N = value_N[by_class_N]  # ascending within each class; the classes' runs are where they were
    rank_N = torch.arange(len(value_N), device=device) - offset_C1[class_N]
    prefix_N = value_N.cumsum(0)
    base_C = torch.cat([prefix_N.new_zeros(1), prefix_N])[offset_C1[:-1]]
    lower_N = prefix_N - base_C[class_N]
    total_C = torch.zeros(num_classes, dtype=torch.float64, device=device).index_add_(0, class_N, value_N)
    low_size_N = (rank_N + 1).double()
    high_size_N = (size_C[class_N] - rank_N - 1).double()
    between_N = lower_N**2 / low_size_N + (total_C[class_N] - lower_N) ** 2 / high_size_N.clamp(min=1.0)
    between_N = between_N.masked_fill((high_size_N == 0) & (size_C[class_N] > 1), -torch.inf)
    best_C = torch.full((num_classes,), -torch.inf, dtype=torch.float64, device=device)
    best_C = best_C.scatter_reduce(0, class_N, between_N, "amax")
    at_best_N = torch.where(between_N == best_C[class_N], rank_N, len(value_N))
    cut_C = torch.full((num_classes,), len(value_N), device=device).scatter_reduce(0, class_N, at_best_N, "amin")
    cell_N = class_N * 2 + (rank_N > cut_C[class_N])

    def cell_sum(values_N: torch.Tensor) -> torch.Tensor:
        return torch.zeros(2 * num_classes, dtype=torch.float64, device=device).index_add_(0, cell_N, values_N)

    mass = cell_sum(torch.ones_like(value_N)) + TINY_MASS
    mean = cell_sum(value_N) / mass
    variance = cell_sum((value_N - mean[cell_N]) ** 2) / mass + reg_covar
    weight = mass.view(-1, 2) / mass.view(-1, 2).sum(dim=1, keepdim=True)
    return torch.stack([weight, mean.view(-1, 2), variance.view(-1, 2)])


@triton.jit
def _densities(log0, log1):
    """Of two weighted log-densities: the higher one, their sum as a multiple of it, and both components' shares."""
    e = tl.exp(-tl.abs(log1 - log0))
    more = 1.0 / (1.0 + e)
    less = e * more
    return tl.maximum(log0, log1), 1.0 + e, tl.where(log1 > log0, less, more), tl.where(log1 > log0, more, less)


@triton.jit
def _component(mass, sums, squares, mean, REG_COVAR: tl.constexpr, TINY: tl.constexpr):
    """Mass, mean and variance after an M step, from the moments around the old mean."""
    n = mass + TINY
    step = tl.sum(sums, axis=0) / n
    return n, mean + step, tl.maximum(tl.sum(squares, axis=0) / n - step * step, 0.0) + REG_COVAR


@triton.jit
def _moments(value_ptr, low, high, c0, c1, mean0, mean1, half0, half1, BLOCK: tl.constexpr, FACTORS: tl.constexpr):
    """(BLOCK,) each, of the values from low to high: the first component's mass; both components' sums and squares of
    the distance from the old means; Σ ln of the higher density and of what the other adds. c, half: the log-density at
    a distance d is c - half d²."""
    mass0 = tl.zeros((BLOCK,), tl.float64)
    sum0 = tl.zeros((BLOCK,), tl.float64)
    sum1 = tl.zeros((BLOCK,), tl.float64)
    square0 = tl.zeros((BLOCK,), tl.float64)
    square1 = tl.zeros((BLOCK,), tl.float64)
    likelihood = tl.zeros((BLOCK,), tl.float64)
    for first in range(low, high, BLOCK * FACTORS):
        # Σ ln(1 + e) as the logarithm of products: a multiplication a value in place of a logarithm.
        product = tl.full((BLOCK,), 1.0, tl.float64)
        for start in range(first, tl.minimum(first + BLOCK * FACTORS, high), BLOCK):
            at = start + tl.arange(0, BLOCK)
            ok = at < high
            x = tl.load(value_ptr + at, mask=ok, other=0.0).to(tl.float64)
            to0, to1 = x - mean0, x - mean1
            higher, factor, share0, share1 = _densities(c0 - half0 * to0 * to0, c1 - half1 * to1 * to1)
            r0 = tl.where(ok, share0, 0.0)
            r1 = tl.where(ok, share1, 0.0)
            likelihood += tl.where(ok, higher, 0.0)
            product *= tl.where(ok, factor, 1.0)
            # Moments around the old means: no digits are lost to the distance from zero.
            mass0 += r0
            sum0 += r0 * to0
            sum1 += r1 * to1
            square0 += r0 * to0 * to0
            square1 += r1 * to1 * to1
        likelihood += tl.log(product)
    return mass0, sum0, sum1, square0, square1, likelihood


@triton.jit
def _em_kernel(
    value_ptr,
    offset_ptr,
    theta_ptr,
    bound_ptr,
    flag_ptr,
    classes,
    max_iter,
    TOL: tl.constexpr,  # constants, because a float argument is passed as float32
    REG_COVAR: tl.constexpr,
    TINY: tl.constexpr,
    HALF_LOG_2PI: tl.constexpr,
    BLOCK: tl.constexpr,
    FACTORS: tl.constexpr,
):
    k = tl.program_id(0)
    low = tl.load(offset_ptr + k)
    high = tl.load(offset_ptr + k + 1)
    count = (high - low).to(tl.float64)
    theta = theta_ptr + 2 * k
    weight0, weight1 = tl.load(theta), tl.load(theta + 1)
    mean0, mean1 = tl.load(theta + 2 * classes), tl.load(theta + 2 * classes + 1)
    var0, var1 = tl.load(theta + 4 * classes), tl.load(theta + 4 * classes + 1)
    bound = tl.full((), float("-inf"), tl.float64)
    iterations = 0
    converged = 0
    running = (high > low) & (max_iter > 0)
    while running:
        c0 = tl.log(weight0) - 0.5 * tl.log(var0) - HALF_LOG_2PI
        c1 = tl.log(weight1) - 0.5 * tl.log(var1) - HALF_LOG_2PI
        mass0, sum0, sum1, square0, square1, likelihood = _moments(
            value_ptr, low, high, c0, c1, mean0, mean1, 0.5 / var0, 0.5 / var1, BLOCK, FACTORS
        )
        n0 = tl.sum(mass0, axis=0)
        n1 = tl.maximum(count - n0, 0.0)
        n0, mean0, var0 = _component(n0, sum0, square0, mean0, REG_COVAR, TINY)
        n1, mean1, var1 = _component(n1, sum1, square1, mean1, REG_COVAR, TINY)
        weight0, weight1 = n0 / (n0 + n1), n1 / (n0 + n1)
        fresh = tl.sum(likelihood, axis=0) / count
        converged = (tl.abs(fresh - bound) < TOL).to(tl.int32)
        bound = fresh
        iterations += 1
        running = (converged == 0) & (iterations < max_iter)
    tl.store(theta, weight0)
    tl.store(theta + 1, weight1)
    tl.store(theta + 2 * classes, mean0)
    tl.store(theta + 2 * classes + 1, mean1)
    tl.store(theta + 4 * classes, var0)
    tl.store(theta + 4 * classes + 1, var1)
    tl.store(flag_ptr + k, iterations)
    tl.store(flag_ptr + classes + k, converged)
    if high > low:
        tl.store(bound_ptr + k, bound)
