"""Which solver runs and why, and that none of them changes the result. cuML is a stand-in here: no GPU, no cuML."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
import types
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from cleanctl.config import SelectConfig
from cleanctl.errors import MissingPackageError, UsageError
from cleanctl.runtime import Choice
from cleanctl.score import solvers
from cleanctl.score.blocks import ArrayBlocks, Float32Blocks
from cleanctl.score.compute import posterior_of
from cleanctl.score.logistic import Logistic, fit_logistic
from cleanctl.score.objective import Problem
from cleanctl.score.solvers import choose_solver, coarse_products

_spec = importlib.util.spec_from_file_location("geometry", Path(__file__).parents[2] / "bench" / "geometry.py")
assert _spec is not None
assert _spec.loader is not None
geometry = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(geometry)


@pytest.fixture
def cuml(monkeypatch):
    """A module with cuML 26.10's LogisticRegression signature, solved by scikit-learn; remembers its calls."""
    from sklearn.linear_model import LogisticRegression as Oracle

    calls = []

    class LogisticRegression:
        def __init__(
            self,
            *,
            penalty="l2",
            tol=1e-4,
            C=1.0,
            fit_intercept=True,
            class_weight=None,
            max_iter=1000,
            linesearch_max_iter=50,
            l1_ratio=None,
            solver="qn",
            lbfgs_memory=5,
            penalty_normalized=True,
            verbose=False,
            output_type=None,
        ):
            self.given = {key: value for key, value in locals().items() if key != "self"}
            calls.append(self)

        def fit(self, X, y):
            assert isinstance(X, torch.Tensor)
            assert X.dtype == torch.float32
            self.rows = X.clone(), np.array(y)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                oracle = Oracle(
                    C=self.given["C"],
                    class_weight=self.given["class_weight"],
                    tol=self.given["tol"],
                    max_iter=self.given["max_iter"],
                ).fit(X.numpy(), y)
            self.coef_, self.intercept_, self.classes_ = oracle.coef_, oracle.intercept_, oracle.classes_
            return self

    package, inner = types.ModuleType("cuml"), types.ModuleType("cuml.linear_model")
    package.__spec__ = importlib.machinery.ModuleSpec("cuml", None)
    inner.LogisticRegression = LogisticRegression
    monkeypatch.setitem(sys.modules, "cuml", package)
    monkeypatch.setitem(sys.modules, "cuml.linear_model", inner)
    return calls


def data_of(classes, *, rows=700, seed=3):
    data = geometry.clip_like(rows, dim=24, classes=classes, prompts=classes, noise=0.4, seed=seed)
    return ArrayBlocks(image_ND=data.image_ND, block_rows=250), data.label_N.astype(np.int64)


def test_cuml_is_called_as_the_papers_estimator(cuml):
    blocks, label = data_of(5)
    use = np.arange(len(label)) % 3 > 0
    fit_logistic(Float32Blocks(blocks), label, use_N=use, inverse_l2=0.5, solver="cuml")
    (model,) = cuml
    assert model.given["penalty"] == "l2"
    assert model.given["C"] == 0.5
    assert model.given["class_weight"] == "balanced"
    assert model.given["fit_intercept"] is True
    assert model.given["max_iter"] == 10_000
    assert model.given["tol"] == 1e-4
    assert model.given["penalty_normalized"] is True  # else C would mean another strength than scikit-learn's
    assert model.given["output_type"] == "numpy"
    np.testing.assert_array_equal(model.rows[0].numpy(), blocks.image_ND[use].astype(np.float32))
    np.testing.assert_array_equal(model.rows[1], label[use])


class Solved(Logistic):
    """With a solver chosen by the test, not by the machine."""

    def __init__(self, config, solver):
        super().__init__(config)
        self._solver = lambda rows, reduce: Choice(value=solver, reason="the test")


@pytest.mark.parametrize("classes", [2, 6])
@pytest.mark.parametrize("crossfit", [0, 2])
def test_cuml_changes_the_start_and_not_the_result(cuml, classes, crossfit):
    blocks, label = data_of(classes)
    label[label == 3] = 4  # class 3 is absent
    ours, theirs = (
        posterior_of(Solved(SelectConfig(crossfit=crossfit), solver), blocks, label, num_classes=classes + 1)
        for solver in ("lbfgs", "cuml")
    )
    assert len(cuml) == max(crossfit, 1)
    np.testing.assert_allclose(theirs.p_label, ours.p_label, atol=1e-3)
    np.testing.assert_allclose(theirs.p_max, ours.p_max, atol=1e-3)


def test_a_start_at_the_optimum_costs_few_passes(cuml):
    """So the model that comes back is the one that was put in: classes, signs and intercepts are in place."""
    blocks, label = data_of(6)
    fresh, started = (fit_logistic(Float32Blocks(blocks), label, solver=name) for name in ("lbfgs", "cuml"))
    assert started.evaluations < fresh.evaluations
    assert started.objective == pytest.approx(fresh.objective, rel=1e-6)


def test_a_bad_answer_of_cuml_is_mended(cuml, monkeypatch):
    blocks, label = data_of(4)
    honest = solvers.fit_cuml

    def wrong(*args, **kwargs):
        coef, intercept = honest(*args, **kwargs)
        return 3.0 * coef[::-1], -intercept

    monkeypatch.setattr("cleanctl.score.logistic.fit_cuml", wrong)
    found = fit_logistic(Float32Blocks(blocks), label, solver="cuml")
    assert found.converged
    assert found.objective == pytest.approx(fit_logistic(Float32Blocks(blocks), label).objective, rel=1e-6)


@pytest.mark.parametrize(
    ("wanted", "device", "solver", "reason"),
    [
        ("auto", "cpu", "lbfgs", "default"),
        ("auto", "cuda", "lbfgs", "not been measured faster"),
        ("cuml", "cuda", "cuml", "asked for"),
        ("lbfgs", "cuda", "lbfgs", "asked for"),
    ],
)
def test_cuml_runs_where_it_is_asked_for_and_nowhere_else(cuml, wanted, device, solver, reason):
    """With cuML installed: its import alone costs seconds."""
    chosen = choose_solver(wanted, device=device)
    assert chosen.value == solver
    assert reason in chosen.reason


def test_a_demand_for_cuml_that_cannot_be_met_is_refused(monkeypatch):
    monkeypatch.setattr(solvers, "find_spec", lambda name: None)
    assert choose_solver("auto", device="cuda").value == "lbfgs"
    with pytest.raises(MissingPackageError, match=r"\[gpu\]"):
        choose_solver("cuml", device="cuda")
    with pytest.raises(UsageError, match="on a CPU"):
        choose_solver("cuml", device="cpu")


def test_coarse_products_are_switched_back_also_after_an_error():
    def fail():
        with coarse_products():
            assert torch.get_float32_matmul_precision() == "high"
            raise RuntimeError("inside")

    before = torch.get_float32_matmul_precision()
    with pytest.raises(RuntimeError, match="inside"):
        fail()
    assert torch.get_float32_matmul_precision() == before


def as_tf32(values):
    """float32 with the 10 stored bits of mantissa that tf32 keeps."""
    return ((np.ascontiguousarray(values).view(np.int32) + 0x1000) & ~0x1FFF).view(np.float32)


def test_passes_in_tf32_lead_to_the_optimum_of_float32(monkeypatch):
    """tf32 is imitated where the products would be coarse; the last passes are exact, and so is the result."""
    blocks, label = data_of(8, rows=1500)
    exact, coarse_passes = Problem.evaluate, []

    def evaluate(self, x):
        if torch.get_float32_matmul_precision() == "highest":
            coarse_passes.append(False)
            return exact(self, x)
        coarse_passes.append(True)
        value, gradient = exact(self, as_tf32(x))
        return value, as_tf32(gradient)

    monkeypatch.setattr(Problem, "evaluate", evaluate)
    data = Float32Blocks(blocks)
    fine = fit_logistic(data, label, coarse=False)
    assert not any(coarse_passes)
    coarse_passes.clear()
    mixed = fit_logistic(data, label, coarse=True)
    assert sum(coarse_passes) >= 3
    assert not coarse_passes[-1]
    assert mixed.converged
    assert mixed.objective == pytest.approx(fine.objective, rel=1e-7)
    assert mixed.evaluations == len(coarse_passes) + 1


@pytest.mark.gpu
@pytest.mark.parametrize("coarse", [False, True])
def test_on_cuda_the_optimum_is_that_of_the_cpu(coarse):
    blocks, label = data_of(8, rows=3000)
    there = fit_logistic(Float32Blocks(blocks, device="cuda"), label, coarse=coarse)
    here = fit_logistic(Float32Blocks(blocks), label)
    assert there.objective == pytest.approx(here.objective, rel=1e-6)
    np.testing.assert_allclose(there.coef_DK, here.coef_DK, atol=5e-2)


@pytest.mark.gpu
def test_on_cuda_cuml_changes_the_start_and_not_the_result():
    pytest.importorskip("cuml")
    blocks, label = data_of(8, rows=3000)
    data = Float32Blocks(blocks, device="cuda")
    ours, theirs = (fit_logistic(data, label, solver=name) for name in ("lbfgs", "cuml"))
    assert theirs.objective == pytest.approx(ours.objective, rel=1e-6)
    assert theirs.evaluations < ours.evaluations
