"""How well training dynamics of a network on the images find right labels: `python -m bench.quality --dynamics WORK`.

In: the reported rows of CIFAR-10 as bench.quality_tasks gives them, and their images. For each kind of noise a store of
them (`import`), a training of the recipe's small network by cross-entropy on all labels that records its dynamics
(`train --record-dynamics`), and `select` by dynamics.margin, dynamics.loss, probe.margin and joint. Out: a record a
selector; beside them the mean of the ranks of joint and the margin, and the margin as a third view: the odds that a
label is right times exp(WEIGHT · margin), a margin being a difference of logits.

On disk: WORK holds decoded images, stores and runs. A training that was stopped goes on; a finished one is read.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from bench.methods import HeldImages, decode
from bench.quality_measures import measured, ranked
from bench.quality_tasks import REPORTED, Task
from cleanctl import api
from cleanctl.config import ImportConfig, SelectConfig, TrainConfig
from cleanctl.images.geometry import Crop
from cleanctl.records import PixelSpec
from cleanctl.store import Store
from cleanctl.train import train

NOISES = ("human worse", "idn 0.3", "symmetric:0.5", "asymmetric:0.4")
RULES = ("dynamics.margin", "dynamics.loss", "probe.margin", "joint.posterior")
RECIPE, SEED = "cpu-small", 1  # SEED: of the draws of made noise, the one that is measured
WEIGHT, LEAST = 0.3, 1e-9


def measure_dynamics(
    task: Task, folder: Path, table: list[dict[str, str]], work: Path, *, epochs: int, noises: list[str]
) -> Iterator[dict[str, Any]]:
    """Records of one kind of noise after the other. folder: what the paths of the table's rows start from."""
    pixel_NSSC = _pixels(folder, table[REPORTED], work)
    for noise, seed, label_N in task.labels:
        if noise in noises and seed in (None, SEED):
            store = _store(task, label_N, work / f"{noise.replace(':', '-').replace(' ', '-')}.zarr")
            seconds = _train(store, pixel_NSSC, epochs)
            about = {"noise": noise, "seed": seed, "wrong": float((label_N != task.truth_N).mean())}
            for one in _records(store, label_N, label_N == task.truth_N):
                yield about | {"epochs": epochs, "train_seconds": seconds} | one
            print(f"dynamics, {noise}: {seconds:.0f} s of training", flush=True)


def _pixels(folder: Path, rows: list[dict[str, str]], work: Path) -> np.ndarray:
    """uint8 (N, 32, 32, 3)."""
    work.mkdir(parents=True, exist_ok=True)
    kept = work / "pixels.npy"
    if not kept.exists():
        np.save(kept, decode(folder, rows))
    return np.load(kept)


def _store(task: Task, label_N: np.ndarray, path: Path) -> Store:
    if path.exists():
        return Store.open(path)
    folder = path.with_suffix(".arrays")
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {
        "image": task.image_ND,
        "labels": label_N,
        "truth": task.truth_N,
        "text": task.text.embedding_PD,
        "text_classes": task.text.class_P,
    }
    for name, values in arrays.items():
        np.save(folder / f"{name}.npy", values)
    given = ImportConfig(
        image_embeddings=folder / "image.npy",
        labels=folder / "labels.npy",
        truth=folder / "truth.npy",
        text_embeddings=folder / "text.npy",
        text_classes=folder / "text_classes.npy",
        logit_scale=task.scale,
    )
    api.import_arrays(given, store=path)
    return Store.open(path)


def _train(store: Store, pixel_NSSC: np.ndarray, epochs: int) -> float:
    """Seconds that the epochs took."""

    def loader_factory(split: str, spec: PixelSpec, crop: Crop | None = None) -> HeldImages:
        return HeldImages(pixel_NSSC)

    config = TrainConfig(
        method="cross-entropy",
        selection="all",
        recipe=RECIPE,
        epochs=epochs,
        name=f"dynamics-{epochs}",
        record_dynamics=True,
        device="cpu",
    )
    return float(train(store, config, loader_factory=loader_factory).seconds)


def _records(store: Store, label_N: np.ndarray, clean_N: np.ndarray) -> Iterator[dict[str, Any]]:
    config = SelectConfig(strategy=" | ".join(RULES), name="all", fallback="none", device="cpu")
    api.select(config, store=store.path)
    table = api.read_selection(store.path, "all")
    assert np.array_equal(table["label"].to_numpy(), label_N), "rows are no longer those of the images"
    score = {rule: table[f"{rule}.score"].to_numpy().astype(np.float64) for rule in RULES}
    for rule in RULES:
        yield {"selector": rule, **measured(table[f"{rule}.keep"].to_numpy(), score[rule], clean_N)}
    p_N, margin_N = score["joint.posterior"], score["dynamics.margin"]
    yield {"selector": "mean rank of joint and the margin", **ranked(_rank(p_N) + _rank(margin_N), clean_N)}
    p_N = p_N.clip(LEAST, 1 - LEAST)
    odds_N = np.log(p_N) - np.log1p(-p_N) + WEIGHT * margin_N
    yield {"selector": "the margin as third view", **measured(odds_N >= 0, odds_N, clean_N)}


def _rank(score_N: np.ndarray) -> np.ndarray:
    """0 for the lowest; ties by row."""
    rank_N = np.empty(len(score_N))
    rank_N[np.argsort(score_N, kind="stable")] = np.arange(len(score_N))
    return rank_N
