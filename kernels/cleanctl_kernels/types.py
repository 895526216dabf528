"""What goes into the kernels and comes out of them: shared by each kernel, its CPU twin and its reference."""

from __future__ import annotations

import math
import sys
from typing import NamedTuple

from cleanctl_kernels.arrays import Array, namespace

TINY_MASS = 10 * sys.float_info.epsilon  # scikit-learn adds this to each component's mass
LOG_2PI = math.log(2 * math.pi)
# exp of a float32 is finite and not subnormal for logits within this bound, so no row maximum has to be found first.
SAFE_EXPONENT = 40.0
QUICK_GELU_SLOPE = 1.702


class Mixtures(NamedTuple):
    """weight, mean, variance: float64 (C, 2). log_likelihood: (C,) mean per value at the last E step.

    iterations: int32 (C,). converged: bool (C,). Classes without values hold NaN and are not converged.
    """

    weight: Array
    mean: Array
    variance: Array
    log_likelihood: Array
    iterations: Array
    converged: Array


class Ragged(NamedTuple):
    """value_N grouped by class: class k owns value_N[offset_C1[k] : offset_C1[k + 1]]. offset_C1: int64."""

    value_N: Array
    offset_C1: Array


class Cut(NamedTuple):
    """box: left, top, width, height of the part that is scaled to width × height, where the crop's corner lies at
    (left, top), outside it where negative."""

    box: tuple[int, int, int, int]
    width: int
    height: int
    left: int
    top: int


class Window(NamedTuple):
    """top_B, left_B: int64 corners of the crop, may be negative. flip_B: bool, mirror left and right. size: S."""

    top_B: Array
    left_B: Array
    flip_B: Array
    size: int
    fill: int = 0


class ClassStats(NamedTuple):
    """All (B,): probability of the given label, highest, its class (lowest index on a tie), second highest, entropy,
    and ln of the first, which is finite also where a low temperature makes that 0 in float32.

    float32 but `suggested`, int32. Entropy in nats. `p_second` is 0 where there is one class.
    """

    p_label: Array
    p_max: Array
    suggested: Array
    p_second: Array
    entropy: Array
    log_p_label: Array


def empty_mixtures(num_classes: int, like: Array) -> Mixtures:
    """On the device of `like`."""
    xp, device = namespace(like), like.device

    def nan(*shape: int) -> Array:
        return xp.full(shape, math.nan, dtype=xp.float64, device=device)

    return Mixtures(
        weight=nan(num_classes, 2),
        mean=nan(num_classes, 2),
        variance=nan(num_classes, 2),
        log_likelihood=nan(num_classes),
        iterations=xp.zeros(num_classes, dtype=xp.int32, device=device),
        converged=xp.zeros(num_classes, dtype=xp.bool, device=device),
    )
