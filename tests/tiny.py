"""A tiny random open_clip model, a few image files, a store of arrays: real libraries, small sizes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("cat", "dog", "ship")
CONFIG = {
    "model_cfg": {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8},
        "text_cfg": {"context_length": 24, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
    },
    "preprocess_cfg": {
        "mean": [0.5, 0.4, 0.3],
        "std": [0.2, 0.25, 0.3],
        "interpolation": "bicubic",
        "resize_mode": "shortest",
    },
}


def write_model(folder: Path, *, seed: int = 0, config: dict | None = None, name: str = "open_clip_model.safetensors"):
    """A `local-dir:` with random weights; gives the folder."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "open_clip_config.json").write_text(json.dumps(config or CONFIG))
    torch.manual_seed(seed)
    model = open_clip.create_model(f"local-dir:{folder}", load_weights=False)
    with torch.no_grad():  # random transformers map everything to nearly the same point; this spreads images out
        model.visual.conv1.weight.mul_(8)
        model.visual.positional_embedding.mul_(0.1)
    save_file(model.state_dict(), folder / name)
    return folder


def write_images(root: Path, per_class: int = 7, *, split: str = "train", seed: int = 0) -> Path:
    """Smooth random JPEGs of odd sizes, a folder a class."""
    random = np.random.default_rng(seed)
    for label in CLASSES:
        folder = root / split / label
        folder.mkdir(parents=True, exist_ok=True)
        for i in range(per_class):
            coarse = random.integers(0, 256, (5, 6, 3), dtype=np.uint8)
            size = (int(random.integers(33, 90)), int(random.integers(33, 90)))
            Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(folder / f"{i:04d}.jpg", quality=90)
    return root


class Recorder:
    """A Progress that remembers what it was told."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.warnings: list[str] = []
        self.tracked: list[tuple[str, int | None, int]] = []

    def track(self, title, *, total, unit, done=0):
        from contextlib import contextmanager

        from cleanctl.progress import SILENT

        self.tracked.append((title, total, done))

        @contextmanager
        def inner():
            with SILENT.track(title, total=total, unit=unit, done=done) as task:
                yield task

        return inner()

    def note(self, text: str) -> None:
        self.notes.append(text)

    def warn(self, text: str) -> None:
        self.warnings.append(text)


def import_store(folder: Path, names: tuple[str, ...], *, image, label, text, text_class, truth=None) -> Path:
    """folder/cleanctl.zarr of these arrays, by way of the files that `cleanctl import` reads."""
    from cleanctl import api
    from cleanctl.config import ImportConfig

    given = {"image_embeddings": image, "labels": label, "text_embeddings": text, "text_classes": text_class}
    given |= {} if truth is None else {"truth": truth}
    for name, values in given.items():
        np.save(folder / f"{name}.npy", values.astype(np.float32 if values.ndim > 1 else np.int64))
    (folder / "classes.txt").write_text("\n".join(names))
    files = {name: folder / f"{name}.npy" for name in given}
    api.import_arrays(ImportConfig(**files, classes=folder / "classes.txt"), store=folder / "cleanctl.zarr")
    return folder / "cleanctl.zarr"


def arrays(path):
    """Everything of a store that must be equal after a kill: every array and attribute."""
    from cleanctl.store import Store

    store = Store.open(path)
    found = {"classes": store.classes, "encoder": store.encoder, "source": store.source}
    found["text"] = (store.text().embedding_PD.tobytes(), store.text().prompts, store.text_attributes())
    for name in store.split_names():
        split = store.split(name)
        fingerprints = split.fingerprints()
        found[name] = {
            "keys": split.keys(),
            "label": split.label_N().tolist(),
            "status": split.status_N().tolist(),
            "embedding": split.embeddings(slice(None)).tobytes(),
            "failures": split.failures(),
            "digest": fingerprints.digest_N16.tolist(),
            "size": fingerprints.size_N.tolist(),
            "mtime": fingerprints.mtime_ns_N.tolist(),
            "attributes": split.attributes,
        }
    return found
