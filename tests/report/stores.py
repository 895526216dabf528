"""Stores for the report's tests: imported arrays of three overlapping classes, a fifth of them with another label."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cleanctl import api
from cleanctl.config import ImportConfig, SelectConfig

CLASSES = ("cat", "dog", "owl")


def make_store(
    folder: Path,
    *,
    rows: int = 600,
    classes: tuple[str, ...] = CLASSES,
    keys: list[str] | None = None,
    truth: bool = True,
    strategies: tuple[str, ...] = ("intersection",),
    seed: int = 0,
) -> Path:
    """cleanctl.zarr in `folder`, with a selection of each strategy."""
    rng = np.random.default_rng(seed)
    true_N = np.arange(rows) % len(classes)
    label_N = np.where(rng.random(rows) < 0.2, (true_N + 1) % len(classes), true_N)
    size = max(8, len(classes))
    image_ND = np.eye(len(classes), size)[true_N] + 0.35 * rng.standard_normal((rows, size))
    arrays = {"x": image_ND.astype("f4"), "y": label_N, "z": true_N, "t": np.eye(len(classes), size, dtype="f4")}
    for name, values in (arrays | {"c": np.arange(len(classes))}).items():
        np.save(folder / f"{name}.npy", values)
    (folder / "names.txt").write_text("\n".join(classes) + "\n", encoding="utf-8")
    if keys is not None:
        (folder / "keys.txt").write_text("\n".join(keys) + "\n", encoding="utf-8")
    config = ImportConfig(
        image_embeddings=folder / "x.npy",
        labels=folder / "y.npy",
        truth=folder / "z.npy" if truth else None,
        classes=folder / "names.txt",
        keys=folder / "keys.txt" if keys is not None else None,
        text_embeddings=folder / "t.npy",
        text_classes=folder / "c.npy",
        logit_scale=10.0,
    )
    path = folder / "cleanctl.zarr"
    api.import_arrays(config, store=path)
    for strategy in strategies:
        api.select(SelectConfig(strategy=strategy, device="cpu"), store=path)
    return path
