"""Which solver fits the logistic scorer, and the two things that CUDA adds: coarse products, and cuML's estimator.

With the curvature as preconditioner our L-BFGS needs 8 to 15 passes at CLIP's geometry; a plain one, such as cuML's,
needs 22 to 75 for a tolerance of 1e-4 (scikit-learn's count on the same data). On a GPU cuML could win only where a
pass costs less than launching it, by milliseconds, while its import brings cuDF and costs seconds. So `auto` never
picks it: nobody has measured it faster, and `fit_cuml` has never run on a GPU. Asked for, it finds the start of our own
L-BFGS, which stops at its own tolerance: which of the two ran changes the time, not the result. Nothing on disk.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

import numpy as np

from cleanctl.errors import MissingPackageError, UsageError
from cleanctl.runtime import Choice
from cleanctl.score.blocks import Float32Blocks

CUML_MAX_ITER = 10_000  # as the papers' LogisticRegression
CUML_TOLERANCE = 1e-4  # scikit-learn's; our own passes finish what is left
COARSE_TOLERANCE = 1e-5  # tf32 products know the objective's gap no better


def choose_solver(wanted: str, *, device: str) -> Choice:
    """`lbfgs` (ours) or `cuml`, and why.

    Raises UsageError if cuML is demanded without CUDA, MissingPackageError if it is demanded and absent.
    """
    if wanted == "lbfgs":
        return Choice(value="lbfgs", reason="asked for")
    if wanted == "auto":
        reason = "cuML has not been measured faster" if device == "cuda" else "the default"
        return Choice(value="lbfgs", reason=reason)
    if device != "cuda":
        raise UsageError("--logistic-solver cuml was asked for on a CPU.", do="Use auto or lbfgs, or a CUDA device.")
    if find_spec("cuml") is None:
        raise MissingPackageError.of("cuml", extra="gpu", needed_for="--logistic-solver cuml")
    return Choice(value="cuml", reason="asked for")


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
