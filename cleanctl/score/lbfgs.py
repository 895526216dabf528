"""L-BFGS with an exact preconditioner, for smooth convex objectives whose gradient is costly.

In: a function x → (value, gradient), a symmetric positive definite approximation of the inverse Hessian, a start.
Out: the minimiser and how it was reached. The unit step is tried first and nearly always taken, so an iteration costs
one evaluation. Vectors are float32 arrays of any shape, of numpy or torch; inner products are float64. Leaves nothing
on disk.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Container
from dataclasses import dataclass

from cleanctl_kernels.arrays import Array, namespace

ARMIJO = 1e-4
MAX_HALVINGS = 12
HISTORY_BYTES = 512 << 20


@dataclass(frozen=True, kw_only=True)
class Minimum:
    """gap: estimate of (value - minimum) / value at the last point that was evaluated, ½ gᵀH⁻¹g / value."""

    x: Array
    value: float
    gap: float
    evaluations: int
    converged: bool


def minimise(
    evaluate: Callable[[Array], tuple[float, Array]],
    start: tuple[Array, float, Array],
    *,
    precondition: Callable[[Array], Array],
    tolerance: float,
    max_evaluations: int,
    refine: Callable[[Array], None] = lambda x: None,
    refine_after: Container[int] = (),
    rescale: bool = True,
    last_step: bool = False,
    report: Callable[[float, float], None] = lambda value, gap: None,
) -> Minimum:
    """start: x, value and gradient there. Stops when the estimated relative gap is at most `tolerance`.

    refine(x), called after the steps in `refine_after`, may change what `precondition` does; the history is kept.
    rescale: whether `precondition` is right only up to a factor, which each step then estimates (one more call of it).

    last_step: where it stops by the gap, the step that the estimate comes from is taken too, and not evaluated: the
    point returned is as much nearer as any step brings it, while value and gap are those of the point before.

    It also stops, converged, where no step lowers the value any more, which is the rounding of the evaluation.
    """
    x, value, gradient = start
    memory = min(20, max(3, HISTORY_BYTES // (2 * x.nbytes)))
    pairs: deque[tuple[Array, Array, float]] = deque(maxlen=memory)
    scale, evaluations, steps = 1.0, 0, 0
    while True:
        direction = _two_loop(gradient, pairs, precondition, scale)
        slope = dot(gradient, direction)
        if slope >= 0:  # rounding has spoilt the history; the preconditioned gradient always descends
            pairs.clear()
            direction = -scale * precondition(gradient)
            slope = dot(gradient, direction)
        gap = -0.5 * slope / max(abs(value), 1e-30)
        report(value, gap)
        if gap <= tolerance or evaluations >= max_evaluations:
            if last_step and gap <= tolerance:
                x = x + direction
            return Minimum(x=x, value=value, gap=gap, evaluations=evaluations, converged=gap <= tolerance)
        found, tried = _searched(evaluate, x, value, direction, slope)
        evaluations += tried
        if found is None:
            return Minimum(x=x, value=value, gap=gap, evaluations=evaluations, converged=gap <= 1e3 * tolerance)
        fresh, fresh_value, fresh_gradient = found
        change, bend = fresh - x, fresh_gradient - gradient
        curvature = dot(change, bend)
        if curvature > 0:
            pairs.append((change, bend, curvature))
            if rescale:
                scale = curvature / dot(bend, precondition(bend))
        x, value, gradient = fresh, fresh_value, fresh_gradient
        steps += 1
        if steps in refine_after:
            refine(x)
            if pairs and rescale:
                scale = pairs[-1][2] / dot(pairs[-1][1], precondition(pairs[-1][1]))


def _searched(
    evaluate: Callable[[Array], tuple[float, Array]], x: Array, value: float, direction: Array, slope: float
) -> tuple[tuple[Array, float, Array] | None, int]:
    """The first of ever shorter steps that lowers the value enough: the point, its value and gradient, None where none
    does; and how many were tried."""
    step = 1.0
    for tried in range(1, MAX_HALVINGS + 1):
        fresh = x + step * direction
        fresh_value, fresh_gradient = evaluate(fresh)
        if fresh_value <= value + ARMIJO * step * slope:
            return (fresh, fresh_value, fresh_gradient), tried
        step = _shorter(step, value, slope, fresh_value)
        if abs(step * slope) <= 1e-9 * abs(value):
            break
    return None, tried


def _two_loop(
    gradient: Array,
    pairs: deque[tuple[Array, Array, float]],
    precondition: Callable[[Array], Array],
    scale: float,
) -> Array:
    q = namespace(gradient).asarray(gradient, copy=True)
    factors = []
    for change, bend, curvature in reversed(pairs):
        factor = dot(change, q) / curvature
        q -= factor * bend
        factors.append(factor)
    direction = scale * precondition(q)
    for (change, bend, curvature), factor in zip(pairs, reversed(factors)):
        direction += (factor - dot(bend, direction) / curvature) * change
    return -direction


def _shorter(step: float, value: float, slope: float, fresh_value: float) -> float:
    """Minimum of the parabola through both values and the slope, kept within a tenth and a half of the step."""
    bend = fresh_value - value - step * slope
    best = -slope * step * step / (2.0 * bend) if bend > 0 else 0.5 * step
    return min(max(best, 0.1 * step), 0.5 * step)


def dot(a: Array, b: Array) -> float:
    xp = namespace(a)
    return float(xp.sum(xp.astype(a, xp.float64) * b))
