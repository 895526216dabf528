"""The logistic scorer: balanced multinomial regression on the noisy labels, scored on the rows it saw.

    minimise  Σ_i w_i · CE(softmax(W x_i + b), y_i) + ½/C ‖W‖²,   w_i = N / (#classes · N_{y_i})   (docs/method.md A.4)

In: EmbeddingBlocks, labels (N,). Out: ClassPosterior. Full batch; blocks are streamed, so memory does not grow with N.
CLIP's features make this problem ill-conditioned; the same optimum is reached several times faster by centring the
features and preconditioning L-BFGS with the curvature itself: in closed form (`Problem.refine`), with many rows for
each class that of a sample (`cleanctl.score.sampled`). On CUDA the first passes use tf32 products and the last ones
float32, so the tolerance is the same; cuML may find the start (`cleanctl.score.solvers`).
Leaves nothing on disk.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from cleanctl.progress import SILENT, Progress
from cleanctl.records import ClassPosterior, EmbeddingBlocks
from cleanctl.score.blocks import Float32Blocks, PosteriorWriter, require_labels
from cleanctl.score.lbfgs import Minimum, minimise
from cleanctl.score.objective import REFINE_AFTER, Problem, tiles
from cleanctl.score.sampled import SampledCurvature, sample_pays
from cleanctl.score.solvers import COARSE_TOLERANCE, coarse_products, fit_cuml

if TYPE_CHECKING:
    import torch

    Point = tuple[torch.Tensor, float, torch.Tensor]  # x, value and gradient there

TOLERANCE = 5e-9  # estimated relative gap; in trials the true one was at most 1e-7, probabilities within 5e-4
MAX_EVALUATIONS = 200


@dataclass(frozen=True, kw_only=True)
class LogisticModel:
    """coef_DK float32, intercept_K float32 over the K classes present in training; class_K their labels, ascending.

    objective as above with C as given; evaluations: passes over the data; gap: estimated relative distance to it.
    """

    coef_DK: np.ndarray
    intercept_K: np.ndarray
    class_K: np.ndarray
    objective: float
    evaluations: int
    gap: float
    converged: bool


def logistic_posterior(
    blocks: EmbeddingBlocks,
    label_N: np.ndarray,
    *,
    num_classes: int,
    crossfit: int = 0,
    seed: int = 0,
    inverse_l2: float = 1.0,
    tolerance: float = TOLERANCE,
    solver: str = "lbfgs",
    device: str = "cpu",
    progress: Progress = SILENT,
) -> ClassPosterior:
    """label_N: int, 0…C-1. Classes without samples get probability 0; with one class present P is 1.

    crossfit K ≥ 2: each row is scored by a model that did not see it (K stratified folds drawn with `seed`).
    solver: lbfgs or cuml (`choose_solver`). Raises InputError on non-finite embeddings, rows named.
    """
    label = require_labels(label_N, blocks.num_rows, num_classes)
    crossfit = crossfit if blocks.num_rows > 1 else 0  # one row leaves nothing to learn from
    data = Float32Blocks(blocks, device=device)
    writer = PosteriorWriter(blocks.num_rows)
    fold_N = stratified_folds(label, crossfit, seed) if crossfit else np.zeros(len(label), np.int16)
    for fold in range(max(crossfit, 1)):
        held_N = fold_N == fold if crossfit else np.zeros(len(label), bool)
        title = f"logistic, fold {fold + 1} of {crossfit}" if crossfit else "logistic"
        model = fit_logistic(
            data,
            label,
            use_N=~held_N,
            inverse_l2=inverse_l2,
            tolerance=tolerance,
            solver=solver,
            device=device,
            progress=progress,
            title=title,
        )
        if not model.converged:
            progress.warn(
                f"{title}: stopped after {model.evaluations} passes, {model.gap:.1e} above the optimum (relative)."
            )
        score_rows(model, data, label, held_N if crossfit else ~held_N, writer, num_classes, device)
    return writer.posterior


def stratified_folds(label_N: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """(N,) int16 fold of each row: every class is spread over the folds as evenly as its size allows."""
    rng = np.random.default_rng(seed)
    shuffled = rng.permutation(len(label_N))
    order = shuffled[np.argsort(label_N[shuffled], kind="stable")]
    # Dealing classes one after the other, without starting anew at fold 0, evens out the folds' sizes as well.
    fold_N = np.empty(len(label_N), np.int16)
    fold_N[order] = np.arange(len(order)) % folds
    return fold_N


def fit_logistic(
    data: Float32Blocks,
    label_N: np.ndarray,
    *,
    use_N: np.ndarray | None = None,
    inverse_l2: float = 1.0,
    tolerance: float = TOLERANCE,
    solver: str = "lbfgs",
    coarse: bool | None = None,
    device: str = "cpu",
    progress: Progress = SILENT,
    title: str = "logistic",
) -> LogisticModel:
    """Fits on the rows where use_N (bool) holds. inverse_l2 is scikit-learn's C. coarse: first passes in tf32 (None: on
    CUDA)."""
    use = np.ones(len(label_N), bool) if use_N is None else use_N
    count_C = np.bincount(label_N[use])
    class_K = np.flatnonzero(count_C)
    if len(class_K) < 2:
        return _constant_model(class_K, data.dim)
    problem = Problem(data, label_N, use, class_K, count_C[class_K], inverse_l2, device)
    start = problem.start()
    if solver == "cuml":
        x = problem.centred(*fit_cuml(data, label_N, use, inverse_l2=inverse_l2))
        start = (x, *problem.evaluate(x))
    with progress.track(title, total=None, unit="passes") as task:

        def report(value: float, gap: float) -> None:
            task.advance()
            task.describe(f"objective {value / problem.total_weight:.6f}, gap {gap:.0e}")

        found = _solve(problem, start, tolerance, device == "cuda" if coarse is None else coarse, report)
    coef_DK, intercept_K = problem.uncentred(found.x)
    return LogisticModel(
        coef_DK=coef_DK,
        intercept_K=intercept_K,
        class_K=class_K,
        objective=found.value,
        evaluations=found.evaluations + 1,
        gap=found.gap,
        converged=found.converged,
    )


def _solve(
    problem: Problem, start: Point, tolerance: float, coarse: bool, report: Callable[[float, float], None]
) -> Minimum:
    """To `tolerance` in float32; `coarse` makes most of the way in tf32."""
    go, spent = _minimiser(problem, report), 0
    if sample_pays(problem):
        curvature = SampledCurvature(problem)
        x = curvature.start(start[0])
        start, spent = (x, *problem.evaluate(x)), 1
        go = _minimiser(problem, report, curvature)
    if coarse:
        with coarse_products():
            near = go(start, tolerance=max(tolerance, COARSE_TOLERANCE))
        start, spent = (near.x, *problem.evaluate(near.x)), spent + near.evaluations + 1
    found = go(start, tolerance=tolerance)
    return replace(found, evaluations=found.evaluations + spent)


def _minimiser(
    problem: Problem, report: Callable[[float, float], None], sampled: SampledCurvature | None = None
) -> Callable[..., Minimum]:
    whole = partial(minimise, problem.evaluate, max_evaluations=MAX_EVALUATIONS, report=report)
    if sampled is None:
        return partial(whole, precondition=problem.precondition, refine=problem.refine, refine_after=REFINE_AFTER)
    every_step = range(1, MAX_EVALUATIONS + 1)
    return partial(whole, precondition=sampled.solve, refine=sampled.refine, refine_after=every_step, rescale=False)


def _constant_model(class_K: np.ndarray, dim: int) -> LogisticModel:
    return LogisticModel(
        coef_DK=np.zeros((dim, len(class_K)), np.float32),
        intercept_K=np.zeros(len(class_K), np.float32),
        class_K=class_K,
        objective=0.0,
        evaluations=0,
        gap=0.0,
        converged=True,
    )


def score_rows(
    model: LogisticModel,
    data: Float32Blocks,
    label_N: np.ndarray,
    row_N: np.ndarray,
    writer: PosteriorWriter,
    num_classes: int,
    device: str = "cpu",
) -> None:
    """Statistics of the rows where row_N (bool) holds, into `writer`; labels are of all classes."""
    import torch
    from cleanctl_kernels.zeroshot import stats_of_logits

    coef_DK = torch.from_numpy(model.coef_DK).to(device)
    intercept_K = torch.from_numpy(model.intercept_K).to(device)
    class_K = torch.from_numpy(model.class_K).to(device)
    position_C = np.full(num_classes, -1, np.int64)
    position_C[model.class_K] = np.arange(len(model.class_K))
    for rows, image in tiles(data, len(model.class_K)):
        wanted = np.flatnonzero(row_N[rows])
        if not len(wanted):
            continue
        chosen = image if len(wanted) == len(image) else image[torch.from_numpy(wanted).to(device)]
        logit_BK = torch.addmm(intercept_K, chosen, coef_DK)
        target = position_C[label_N[rows][wanted]]
        known_B = torch.from_numpy(target >= 0).to(device)
        stats = stats_of_logits(logit_BK, torch.from_numpy(np.maximum(target, 0)).to(device))
        stats = stats._replace(
            p_label=torch.where(known_B, stats.p_label, 0.0),
            log_p_label=torch.where(known_B, stats.log_p_label, float("-inf")),
            suggested=class_K[stats.suggested.long()].int(),
        )
        writer.put(rows.start + wanted, stats)
