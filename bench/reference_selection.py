"""The published selection, transcribed plainly with scikit-learn and torch: what bench/select compares with.

Usage: python -m bench.reference_selection DATA.npz OUT.npz. DATA holds image_ND, label_N, text_PD, class_P; OUT gets
the kept rows and the seconds of each step. Everything is held in memory, as the published code does.
"""

from __future__ import annotations

import re
import sys
import time
import warnings
from pathlib import Path

import numpy as np

TEMPERATURE, THETA_GMM, THETA_CONSISTENCY = 0.07, 0.5, 0.8


def zero_shot(image_ND: np.ndarray, text_PD: np.ndarray, class_P: np.ndarray) -> np.ndarray:
    """(N, C) float32."""
    import torch

    mass_NP = torch.exp(torch.from_numpy(image_ND) @ torch.from_numpy(text_PD).T / TEMPERATURE)
    mass_NC = torch.zeros(len(image_ND), int(class_P.max()) + 1)
    mass_NC.index_add_(1, torch.from_numpy(class_P.astype(np.int64)), mass_NP)
    return (mass_NC / mass_NC.sum(dim=1, keepdim=True)).numpy()


def induced(image_ND: np.ndarray, label_N: np.ndarray) -> np.ndarray:
    """(N, C), by the model scored on its own training rows."""
    from sklearn.linear_model import LogisticRegression

    # The published code pins scikit-learn 1.2, whose tol of 1e-4 bounds the gradient of the sum. Since 1.5 it bounds
    # that of the mean; balanced weights add up to N. Version 1.2 converts to float64.
    model = LogisticRegression(random_state=0, max_iter=10_000, class_weight="balanced", tol=1e-4 / len(label_N))
    image_ND = image_ND.astype(np.float64)
    return model.fit(image_ND, label_N).predict_proba(image_ND)


def loss_set(prob_NC: np.ndarray, label_N: np.ndarray) -> np.ndarray:
    """(N,) bool: posterior of the larger mean of each class's two Gaussians."""
    from sklearn.mixture import GaussianMixture

    score_N = np.log(prob_NC[np.arange(len(label_N)), label_N])
    keep_N = np.zeros(len(label_N), bool)
    for k in range(prob_NC.shape[1]):
        rows = np.flatnonzero(label_N == k)
        score = score_N[rows]
        scaled = ((score - score.min()) / (score.max() - score.min()))[:, None]
        mixture = GaussianMixture(2).fit(scaled)
        keep_N[rows] = mixture.predict_proba(scaled)[:, mixture.means_.argmax()] >= THETA_GMM
    return keep_N


def consistency_set(prob_NC: np.ndarray, label_N: np.ndarray) -> np.ndarray:
    return prob_NC[np.arange(len(label_N)), label_N] / prob_NC.max(axis=1) >= THETA_CONSISTENCY


def select(
    image_ND: np.ndarray, label_N: np.ndarray, text_PD: np.ndarray, class_P: np.ndarray
) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Kept sets by rule and `intersection`, and seconds by step."""
    seconds: dict[str, float] = {}

    def step(name: str, start: float) -> float:
        now = time.perf_counter()
        seconds[name] = now - start
        return now

    np.random.seed(0)
    now = time.perf_counter()
    zero_NC = zero_shot(image_ND.astype(np.float32), text_PD, class_P)
    now = step("zeroshot", now)
    induced_NC = induced(image_ND.astype(np.float32), label_N)
    now = step("logistic", now)
    kept = {"zeroshot.loss": loss_set(zero_NC, label_N), "logistic.loss": loss_set(induced_NC, label_N)}
    now = step("mixtures", now)
    kept["zeroshot.consistency"] = consistency_set(zero_NC, label_N)
    kept["logistic.consistency"] = consistency_set(induced_NC, label_N)
    step("consistency", now)
    kept["intersection"] = np.logical_and.reduce(list(kept.values()))
    return kept, seconds


def main(data: str, out: str) -> None:
    import sklearn.linear_model
    import sklearn.mixture  # noqa: F401
    import torch  # noqa: F401  imports stay outside the timing

    warnings.simplefilter("ignore")
    loaded = np.load(data)
    image, label, text, class_P = (loaded[key] for key in ("image_ND", "label_N", "text_PD", "class_P"))
    baseline = resident_mib()
    started = time.perf_counter()
    kept, seconds = select(image, label, text, class_P)
    total = time.perf_counter() - started
    seconds = {f"seconds.{step}": value for step, value in seconds.items()}
    np.savez(out, **kept, **seconds, total=total, baseline=baseline, peak=resident_mib())


def resident_mib() -> float:
    """Peak resident memory of this process so far. (`ru_maxrss` would count the process that started it as well.)"""
    peak = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert peak is not None
    return int(peak[1]) / 1024


if __name__ == "__main__":
    main(*sys.argv[1:])
