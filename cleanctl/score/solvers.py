"""Which solver fits the logistic scorer, and the two things that CUDA adds: coarse products, and cuML's estimator.

With the curvature as preconditioner our L-BFGS needs 8 to 15 passes at CLIP's geometry; a plain one, such as cuML's,
needs 22 to 75 for a tolerance of 1e-4 (scikit-learn's count on the same data). On a GPU cuML can therefore win only
where a pass costs less than launching it: where N · D · K is small. `CUML_MAX_WORK` says where, from a model of the
launches; no GPU has measured it, and `fit_cuml` has never run on one. Whatever cuML returns is where our own L-BFGS
starts, which stops at its own tolerance: which of the two ran changes the time, not the result. Nothing on disk.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

import numpy as np

from cleanctl.errors import MissingPackageError, UsageError, install_command
from cleanctl.runtime import Choice
from cleanctl.score.blocks import Float32Blocks

# Ours: about 12 passes of 1 ms of launches. cuML: about 50 of 0.05 ms, and 5 of ours to finish. That leaves it 4.5 ms
# for its 43 passes more, of 4 · N · D · K operations each: at 20 TFLOP/s enough up to 5e8.
CUML_MAX_WORK = 5e8
CUML_MAX_ITER = 10_000  # as the papers' LogisticRegression
CUML_TOLERANCE = 1e-4  # scikit-learn's; our own passes finish what is left
COARSE_TOLERANCE = 1e-5  # tf32 products know the objective's gap no better


def choose_solver(wanted: str, *, device: str, work: float) -> Choice:
    """`lbfgs` (ours) or `cuml`, and why. work: N · D · K of the fit.

    Raises UsageError if cuML is demanded without CUDA, MissingPackageError if it is demanded and absent.
    """
    if wanted == "lbfgs":
        return Choice(value="lbfgs", reason="asked for")
    if wanted == "cuml" and device != "cuda":
        raise UsageError("--logistic-solver cuml was asked for on a CPU.", do="Use auto or lbfgs, or a CUDA device.")
    if device != "cuda":
        return Choice(value="lbfgs", reason="cuML needs CUDA")
    if find_spec("cuml") is None:
        if wanted == "cuml":
            raise MissingPackageError.of("cuml", extra="gpu", needed_for="--logistic-solver cuml")
        return Choice(value="lbfgs", reason=f"cuML is not installed ({install_command('gpu')})")
    if wanted == "cuml":
        return Choice(value="cuml", reason="asked for")
    if work <= CUML_MAX_WORK:
        return Choice(value="cuml", reason=f"a small problem, N·D·K {work:.1e}")
    return Choice(value="lbfgs", reason=f"N·D·K is {work:.1e}: fewer passes than cuML")


def fit_cuml(
    data: Float32Blocks, label_N: np.ndarray, use_N: np.ndarray, *, inverse_l2: float
) -> tuple[np.ndarray, np.ndarray]:
    """(K, D) and (K,) float32 over the classes that use_N's labels hold, ascending. Holds the used rows in float32 on
    the device. Two classes, of which cuML returns one vector, are given as ± half of it."""
    import torch
    from cuml.linear_model import LogisticRegression

    used = np.flatnonzero(use_N)
    image_ND = torch.empty(len(used), data.dim, device=data.device)
    start = 0
    for rows, image in data:
        part = torch.as_tensor(image)[torch.from_numpy(use_N[rows]).to(data.device)]
        image_ND[start : start + len(part)] = part
        start += len(part)
    model = LogisticRegression(
        penalty="l2",
        C=inverse_l2,
        class_weight="balanced",
        fit_intercept=True,
        max_iter=CUML_MAX_ITER,
        tol=CUML_TOLERANCE,
        output_type="numpy",
    )
    model.fit(image_ND, label_N[used].astype(np.int32))
    coef_KD = np.asarray(model.coef_, np.float32).reshape(-1, data.dim)
    intercept_K = np.asarray(model.intercept_, np.float32).reshape(-1)
    if len(coef_KD) == 1:
        return np.concatenate([-coef_KD, coef_KD]) / 2, np.concatenate([-intercept_K, intercept_K]) / 2
    return coef_KD, intercept_K


@contextmanager
def coarse_products() -> Iterator[None]:
    """float32 matrix products in tf32 on CUDA, accumulated in float32: 11 bits of each factor.

    Embeddings are float16 and lose nothing; coefficients and residuals do, which moves the minimum by less than
    COARSE_TOLERANCE. The passes that decide the result are made in float32 afterwards.
    """
    import torch

    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
