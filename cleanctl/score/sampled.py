"""Newton directions from a sample of the rows, for fits whose passes are costly.

With more rows for each parameter the penalty weighs less, the optimum lies farther out, and what the preconditioner of
`cleanctl.score.objective` leaves out, how classes depend on each other, makes L-BFGS need more passes: at CLIP's
geometry, 100 classes and 512 dimensions 10 at 50,000 rows, 33 at a million. A sample of a few ten thousand rows knows
that curvature: H d = g, solved on it by conjugate gradients, takes the preconditioner's place, and 8 to 12 passes
suffice up to two millions. The optimum is that of all rows, since only their value and gradient decide where to stop.
Leaves nothing on disk.

Source: R. H. Byrd, G. M. Chin, W. Neveitt, J. Nocedal, On the use of stochastic Hessian information in optimization
methods for machine learning, SIAM J. Optim. 21 (2011).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from cleanctl_kernels.arrays import Array, namespace, to_numpy

from cleanctl.score.blocks import ArrayBlocks, Float32Blocks
from cleanctl.score.lbfgs import dot, minimise
from cleanctl.score.objective import REFINE_AFTER, Problem

# With fewer, the solves on the sample cost more than the passes that they save: measured for 10 to 100 classes and 128
# to 512 dimensions, the two ways are as fast at 4 to 7 rows a parameter; at 20 this one takes half of the time.
FROM_ROWS = 1 << 15
FROM_ROWS_PER_PARAMETER = 6
SHARE = 8
MAX_ROWS = 1 << 16  # 64 MiB at 512 dimensions
LARGE_ROWS = 1 << 21  # from here on a pass costs more than a better sample, which saves passes
LARGE_MAX_ROWS = 1 << 19  # 512 MiB at 512 dimensions
MAX_STEPS = 10  # of conjugate gradients; each costs a pass over the sample
TOLERANCE = 0.1  # of the residual, in the preconditioner's norm
START_TOLERANCE = 1e-3  # the sample's own optimum lies farther than that from the optimum of all rows


def sample_pays(problem: Problem) -> bool:
    return problem.total_weight >= max(FROM_ROWS, FROM_ROWS_PER_PARAMETER * problem.num_classes * problem.data.dim)


def _sample_rows(problem: Problem) -> int:
    """A row for each parameter, within bounds, where passes are long: each of them then brings the gap down by ten,
    where an eighth of that brings it down by two."""
    count = int(problem.total_weight)
    if count <= LARGE_ROWS:
        return min(count // SHARE, MAX_ROWS)
    return min(count // SHARE, LARGE_MAX_ROWS, max(MAX_ROWS, problem.num_classes * problem.data.dim))


class SampledCurvature:
    """The curvature of `problem`, known from every n-th of its used rows, at the point last given to `refine`."""

    def __init__(self, problem: Problem, *, rows: int | None = None) -> None:
        used = np.flatnonzero(to_numpy(problem.weight_N))
        count = int(problem.total_weight)  # of all parts: the weights add up to the rows used
        rows = _sample_rows(problem) if rows is None else rows
        every = max(1, count // rows)
        # Where all rows are used, processes that share them take the very rows that one process takes.
        first = -problem.data.first % every if len(used) == problem.data.num_rows else 0
        chosen = used[first::every]
        blocks = ArrayBlocks(image_ND=_rows_of(problem.data, chosen))
        self._sample = problem.sampled(Float32Blocks(blocks, device=problem.device), chosen)
        self._times: Callable[[Array], Array] | None = None

    def start(self, x: Array) -> Array:
        """A point near the optimum, for a fraction of a pass: the sample's optimum, not quite."""
        found = minimise(
            self._sample.evaluate,
            (x, *self._sample.evaluate(x)),
            precondition=self._sample.precondition,
            tolerance=START_TOLERANCE,
            max_evaluations=50,
            refine=self._sample.refine,
            refine_after=REFINE_AFTER,
        )
        self._sample.refine(found.x)
        self._times = self._sample.curvature_at(found.x)
        return found.x

    def refine(self, x: Array) -> None:
        self._times = self._sample.curvature_at(x)

    def solve(self, gradient: Array) -> Array:
        """d of H d = gradient, to TOLERANCE or MAX_STEPS; a descent direction also where it ended early."""
        assert self._times is not None, "start first"
        xp = namespace(gradient)
        direction, residual = xp.zeros_like(gradient), xp.asarray(gradient, copy=True)
        turned = self._sample.precondition(residual)
        along, size = turned, dot(residual, turned)
        enough = TOLERANCE**2 * size
        for _ in range(MAX_STEPS):
            if size <= enough:
                break
            bent = self._times(along)
            step = size / dot(along, bent)
            direction += step * along
            residual -= step * bent
            turned = self._sample.precondition(residual)
            before, size = size, dot(residual, turned)
            along = turned + (size / before) * along
        return direction


def _rows_of(data: Float32Blocks, row_M: np.ndarray) -> np.ndarray:
    """float16 (M, D), ascending rows: as they are stored."""
    image_MD = np.empty((len(row_M), data.dim), np.float16)
    for rows, image in data:
        first, last = np.searchsorted(row_M, (rows.start, rows.stop))
        image_MD[first:last] = to_numpy(image)[row_M[first:last] - rows.start]
    return image_MD
