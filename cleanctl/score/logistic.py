"""The logistic scorer: balanced multinomial regression on the noisy labels, scored on the rows it saw.

    minimise  Σ_i w_i · CE(softmax(W x_i + b), y_i) + ½/C ‖W‖²,   w_i = N / (#classes · N_{y_i})   (docs/method.md A.4)

In: Rows. Out: ClassStats a row. Full batch; blocks are streamed, so memory does not grow with N.
CLIP's features make this problem ill-conditioned; the same optimum is reached several times faster by centring the
features and preconditioning L-BFGS with the curvature itself: in closed form (`Problem.refine`), with many rows for
each class that of a sample (`cleanctl.score.sampled`). On CUDA the first passes use tf32 products and the last ones
float32, so the tolerance is the same; cuML may find the start (`cleanctl.score.solvers`).
Leaves nothing on disk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from cleanctl_kernels.arrays import Array, as_array, namespace, to_numpy
from cleanctl_kernels.threads import one_blas_thread

from cleanctl.errors import UsageError
from cleanctl.progress import SILENT, Progress
from cleanctl.runtime import Choice
from cleanctl.score.blocks import Float32Blocks
from cleanctl.score.lbfgs import Minimum, minimise
from cleanctl.score.objective import REFINE_AFTER, Problem
from cleanctl.score.sampled import SampledCurvature, sample_pays
from cleanctl.score.scorer import ALONE, Reduce, Rows, Scorer
from cleanctl.score.solvers import COARSE_TOLERANCE, choose_solver, coarse_products, fit_cuml

if TYPE_CHECKING:
    from cleanctl_kernels import ClassStats

Point = tuple[Array, float, Array]  # x, value and gradient there

TOLERANCE = 5e-9  # estimated relative gap; in trials the true one was at most 1e-7, probabilities within 5e-4
# Of more than MANY_ROWS, before a last step that is not evaluated. What it does to the kept set is in docs/scale.md.
MANY_ROWS, MANY_TOLERANCE = 1 << 19, 1e-5
MAX_EVALUATIONS = 200


@dataclass(frozen=True, kw_only=True)
class LogisticModel:
    """coef_DK float32, intercept_K float32 over the K classes present in training; class_K their labels, ascending.

    objective as above with C as given; evaluations: passes over the data; gap: estimated relative distance to it, of a
    fit to very many rows that of the point before the last step.
    """

    coef_DK: np.ndarray
    intercept_K: np.ndarray
    class_K: np.ndarray
    objective: float
    evaluations: int
    gap: float
    converged: bool


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """One model, or with `fold_N` (int16, of the part's rows) as many as there are folds: model k did not see fold k.

    data: the part's rows, some of them kept in memory since the fit."""

    data: Float32Blocks
    models: tuple[LogisticModel, ...]
    fold_N: np.ndarray | None
    solver: Choice


class Logistic(Scorer):
    """Classes without samples get probability 0; with one class present P is 1.

    `--crossfit` K ≥ 2: each row is scored by a model that did not see it (K stratified folds drawn with `--seed`).
    """

    name = "logistic"
    evidence = 3

    def parameters(self) -> dict[str, Any]:
        return {"crossfit": self.config.crossfit, "seed": self.config.seed} if self.config.crossfit else {}

    def fit(self, rows: Rows, reduce: Reduce) -> Fitted:
        folds = self.config.crossfit
        if folds > len(rows.label_N):
            raise UsageError(
                f"--crossfit is {folds}, of {len(rows.label_N):,} readable images.",
                so="A fold would be empty.",
                do="Give at most as many folds as images, or 0.",
            )
        solver, data, label_N = self._solver(rows, reduce), rows.own_tiles(), rows.own_labels
        fold_N = stratified_folds(rows.label_N, folds, self.config.seed)[rows.own] if folds else None
        models = []
        for fold in range(max(folds, 1)):
            title = f"logistic, fold {fold + 1} of {folds}" if folds else "logistic"
            model = fit_logistic(
                data,
                label_N,
                use_N=None if fold_N is None else fold_N != fold,
                num_classes=rows.num_classes,
                solver=solver.value,
                reduce=reduce,
                progress=rows.progress,
                title=title,
            )
            if not model.converged:
                rows.progress.warn(
                    f"{title}: stopped after {model.evaluations} passes, {model.gap:.1e} above the optimum (relative)."
                )
            models.append(model)
        return Fitted(data=data, models=tuple(models), fold_N=fold_N, solver=solver)

    def score(self, model: Fitted, rows: Rows) -> Iterator[tuple[slice | np.ndarray, ClassStats]]:
        label_N, most = rows.own_labels, max(len(one.class_K) for one in model.models)
        networks = [_on_device(one, rows) for one in model.models]

        def work(part: slice, image: Array) -> list[tuple[slice | np.ndarray, ClassStats]]:
            if model.fold_N is None:
                return [(part, networks[0](image, label_N[part]))]
            done: list[tuple[slice | np.ndarray, ClassStats]] = []
            for fold, network in enumerate(networks):
                held = np.flatnonzero(model.fold_N[part] == fold)
                if len(held):
                    own = image[as_array(held, rows.device.value)]
                    done.append((part.start + held, network(own, label_N[part][held])))
            return done

        for done in model.data.map(work, row_bytes=8 * most):
            yield from done

    def ran(self, model: Fitted, rows: Rows) -> dict[str, Any]:
        solver, device = model.solver, rows.device
        words = {"lbfgs": "preconditioned L-BFGS", "cuml": "cuML's LogisticRegression, finished by L-BFGS"}
        precision = ", tf32 then float32" if device.value == "cuda" else ""
        passes, gap = sum(one.evaluations for one in model.models), max(one.gap for one in model.models)
        found = f", gap {gap:.0e} after {passes} passes" if passes else ""
        by = f"{words[solver.value]} on {device.value}{precision}{found} ({solver.reason}; {device.reason})"
        return {"by": by, "solver": solver.value, "passes": passes, "gap": gap}

    def _solver(self, rows: Rows, reduce: Reduce) -> Choice:
        if reduce.parts > 1:
            return Choice(value="lbfgs", reason="the rows are shared among processes")
        return choose_solver(self.config.logistic_solver, device=rows.device.value)


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
    num_classes: int | None = None,
    inverse_l2: float = 1.0,
    tolerance: float | None = None,
    solver: str = "lbfgs",
    coarse: bool | None = None,
    reduce: Reduce = ALONE,
    progress: Progress = SILENT,
    title: str = "logistic",
) -> LogisticModel:
    """Fits on the rows where use_N (bool) holds. num_classes: C, needed where `data` is one part of the rows.
    inverse_l2 is scikit-learn's C. tolerance: of the gap; None is TOLERANCE, of more than MANY_ROWS MANY_TOLERANCE with
    a last step that is not evaluated. coarse: first passes in tf32 (None: on CUDA)."""
    use = np.ones(len(label_N), bool) if use_N is None else use_N
    own_C = np.bincount(label_N[use], minlength=num_classes or 0).astype(np.float64)
    count_C = to_numpy(reduce.sum(as_array(own_C, data.device))).astype(np.int64)
    class_K = np.flatnonzero(count_C)
    if len(class_K) < 2:
        return _constant_model(class_K, data.dim)
    problem = Problem(data, label_N, use, class_K, count_C[class_K], inverse_l2, reduce)
    with one_blas_thread(), progress.track(title, total=None, unit="passes") as task:
        start = problem.start()
        if solver == "cuml":
            x = problem.centred(*fit_cuml(data, label_N, use, inverse_l2=inverse_l2))
            start = (x, *problem.evaluate(x))

        def report(value: float, gap: float) -> None:
            task.advance()
            task.describe(f"objective {value / problem.total_weight:.6f}, gap {gap:.0e}")

        found = _solve(problem, start, tolerance, data.device == "cuda" if coarse is None else coarse, report)
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
    problem: Problem, start: Point, tolerance: float | None, coarse: bool, report: Callable[[float, float], None]
) -> Minimum:
    """To `tolerance` in float32; `coarse` makes most of the way in tf32."""
    hasty = tolerance is None and problem.total_weight > MANY_ROWS
    tolerance = tolerance or (MANY_TOLERANCE if hasty else TOLERANCE)
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
    found = go(start, tolerance=tolerance, last_step=hasty)
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


def _on_device(model: LogisticModel, rows: Rows) -> Callable[[Array, np.ndarray], ClassStats]:
    """(images, labels of all classes) → statistics."""
    from cleanctl_kernels.zeroshot import stats_of_logits

    device = rows.device.value
    coef_DK, intercept_K, class_K = (
        as_array(values, device) for values in (model.coef_DK, model.intercept_K, model.class_K)
    )
    position_C = np.full(rows.num_classes, -1, np.int64)
    position_C[model.class_K] = np.arange(len(model.class_K))

    def stats(image_BD: Array, label_B: np.ndarray) -> ClassStats:
        target_B = as_array(np.maximum(position_C[label_B], 0), device)
        unknown_B = as_array(position_C[label_B] < 0, device)
        logit_BK = image_BD @ coef_DK
        logit_BK += intercept_K
        found = stats_of_logits(logit_BK, target_B)
        found.p_label[unknown_B] = 0.0
        found.log_p_label[unknown_B] = -float("inf")
        xp = namespace(image_BD)
        return found._replace(suggested=xp.astype(class_K[xp.astype(found.suggested, xp.int64)], xp.int32))

    return stats
