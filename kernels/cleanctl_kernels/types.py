"""What goes into the kernels and comes out of them: shared by each kernel, its CPU twin and its reference."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch

TINY_MASS = 10 * torch.finfo(torch.float64).eps  # scikit-learn adds this to each component's mass
LOG_2PI = math.log(2 * math.pi)
# exp of a float32 is finite and not subnormal for logits within this bound, so no row maximum has to be found first.
SAFE_EXPONENT = 40.0


class Mixtures(NamedTuple):
    """weight, mean, variance: float64 (C, 2). log_likelihood: (C,) mean per value at the last E step.

    iterations: int32 (C,). converged: bool (C,). Classes without values hold NaN and are not converged.
    """

    weight: torch.Tensor
    mean: torch.Tensor
    variance: torch.Tensor
    log_likelihood: torch.Tensor
    iterations: torch.Tensor
    converged: torch.Tensor


class Ragged(NamedTuple):
    """value_N grouped by class: class k owns value_N[offset_C1[k] : offset_C1[k + 1]]."""

    value_N: torch.Tensor
    offset_C1: torch.Tensor


class Window(NamedTuple):
    """top_B, left_B: int64 corners of the crop, may be negative. flip_B: bool, mirror left and right. size: S."""

    top_B: torch.Tensor
    left_B: torch.Tensor
    flip_B: torch.Tensor
    size: int
    fill: int = 0


class ClassStats(NamedTuple):
    """All (B,): probability of the given label, highest, its class (lowest index on a tie), second highest, entropy,
    and ln of the first, which is finite also where a low temperature makes that 0 in float32.

    float32 but `suggested`, int32. Entropy in nats. `p_second` is 0 where there is one class.
    """

    p_label: torch.Tensor
    p_max: torch.Tensor
    suggested: torch.Tensor
    p_second: torch.Tensor
    entropy: torch.Tensor
    log_p_label: torch.Tensor


def empty_mixtures(num_classes: int, device: torch.device) -> Mixtures:
    def nan(*shape: int) -> torch.Tensor:
        return torch.full(shape, math.nan, dtype=torch.float64, device=device)

    return Mixtures(
        weight=nan(num_classes, 2),
        mean=nan(num_classes, 2),
        variance=nan(num_classes, 2),
        log_likelihood=nan(num_classes),
        iterations=torch.zeros(num_classes, dtype=torch.int32, device=device),
        converged=torch.zeros(num_classes, dtype=torch.bool, device=device),
    )
