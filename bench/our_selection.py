"""cleanctl's own selection of the same arrays, in a process of its own: the other side of bench/select's comparison.

Usage: python -m bench.our_selection DATA.npz OUT.npz [DEVICE], as bench.reference_selection.
"""

from __future__ import annotations

import sys
import time
from dataclasses import asdict

import numpy as np

from bench.reference_selection import THETA_CONSISTENCY, THETA_GMM, resident_mib
from cleanctl.config import SelectConfig
from cleanctl.records import TextEmbeddings
from cleanctl.runtime import choose_device
from cleanctl.score.blocks import ArrayBlocks
from cleanctl.score.compute import posterior_of
from cleanctl.score.mechanisms import consistency, loss
from cleanctl.score.mixture import loss_scores


def select(
    image_ND: np.ndarray, label_N: np.ndarray, text_PD: np.ndarray, class_P: np.ndarray, *, device: str
) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Kept sets by rule and `intersection`, and seconds by step."""
    classes = int(class_P.max()) + 1
    blocks = ArrayBlocks(image_ND=image_ND)
    text = TextEmbeddings(embedding_PD=text_PD, class_P=class_P, prompts=("",) * len(class_P))
    marks = [time.perf_counter()]
    config = SelectConfig(theta_gmm=THETA_GMM, theta_consistency=THETA_CONSISTENCY)
    zero = posterior_of("zeroshot", blocks, label_N, num_classes=classes, text=text, device=device)
    marks.append(time.perf_counter())
    induced = posterior_of("logistic", blocks, label_N, num_classes=classes, device=device)
    marks.append(time.perf_counter())
    kept, on = {}, choose_device(device).value
    for name, posterior in (("zeroshot", zero), ("logistic", induced)):
        clean_N = loss_scores(posterior.log_p_label, label_N, num_classes=classes, device=on).posterior_N
        kept[f"{name}.loss"] = loss(asdict(posterior) | {"clean": clean_N}, label_N, config).keep_N
    marks.append(time.perf_counter())
    for name, posterior in (("zeroshot", zero), ("logistic", induced)):
        kept[f"{name}.consistency"] = consistency(asdict(posterior), label_N, config).keep_N
    marks.append(time.perf_counter())
    kept["intersection"] = np.logical_and.reduce(list(kept.values()))
    steps = ("zeroshot", "logistic", "mixtures", "consistency")
    return kept, {step: float(b - a) for step, a, b in zip(steps, marks, marks[1:])}


def main(data: str, out: str, device: str = "cpu") -> None:
    import cleanctl_kernels  # noqa: F401  imports stay outside the timing

    loaded = np.load(data)
    image, label, text, class_P = (loaded[key] for key in ("image_ND", "label_N", "text_PD", "class_P"))
    baseline = resident_mib()
    started = time.perf_counter()
    kept, seconds = select(image, label, text, class_P, device=device)
    total = time.perf_counter() - started
    seconds = {f"seconds.{step}": value for step, value in seconds.items()}
    np.savez(out, **kept, **seconds, total=total, baseline=baseline, peak=resident_mib())


if __name__ == "__main__":
    main(*sys.argv[1:])
