"""A store of clip-like embeddings with known truth, on a tiny text tower where prompts are learnt."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from tiny_clip import TEXT, VIT

from cleanctl.clip.models import resolve_model
from cleanctl.records import Fingerprints, SplitManifest, TextEmbeddings
from cleanctl.store import Store

CLASSES = ("cat", "dog", "maple_tree", "ship")
DIM = 8


def write_model(folder: Path, *, seed: int = 0) -> Path:
    """A `local-dir:` with a random CLIP whose joint space has 8 dimensions."""
    import open_clip

    folder.mkdir(parents=True)
    config = {"embed_dim": DIM, "vision_cfg": VIT, "text_cfg": TEXT}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))
    torch.manual_seed(seed)
    model = open_clip.CLIP(**config)
    with torch.no_grad():
        model.token_embedding.weight.mul_(50)
        model.logit_scale.fill_(np.log(20))
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    return folder


def write_store(
    path: Path,
    *,
    rows: int = 600,
    noise: float = 0.3,
    classes: tuple[str, ...] = CLASSES,
    absent: int | None = None,
    model: Path | None = None,
    split: str = "train",
    seed: int = 0,
    truth: bool = True,
    failed: tuple[int, ...] = (5,),
) -> Store:
    """Rows near one of C centres, prompts near the centres, `noise` of the labels uniform over all classes.

    absent: a class without rows. model: whose provenance the store carries; without one it is imported arrays.
    """
    rng = np.random.default_rng(7)
    centre = _unit(rng.standard_normal((len(classes), DIM)) + 1.0)
    rng = np.random.default_rng([seed, len(split)])
    true_N = rng.integers(0, len(classes), rows)
    label_N = np.where(rng.random(rows) < noise, rng.integers(0, len(classes), rows), true_N)
    if absent is not None:
        true_N[true_N == absent] = label_N[label_N == absent] = (absent + 1) % len(classes)
    image_ND = _unit(centre[true_N] + 0.18 * rng.standard_normal((rows, DIM))).astype(np.float16)
    if not Store.exists(path):
        encoder = {"kind": "arrays", "dim": DIM, "logit_scale": 20.0}
        if model is not None:
            encoder = resolve_model(f"local-dir:{model}", None).info("fp32").to_json()
        store = Store.create(path, classes=classes, encoder=encoder)
        text_CD = _unit(centre + 0.1 * rng.standard_normal(centre.shape)).astype(np.float32)
        class_C = np.arange(len(classes), dtype=np.int32)
        store.write_text(TextEmbeddings(embedding_PD=text_CD, class_P=class_C, prompts=classes), {"digest": "made"})
    store = Store.open(path)
    zeros = np.zeros(rows, np.int64)
    manifest = SplitManifest(
        split=split,
        keys=[f"{row:05d}.jpg" for row in range(rows)],
        label_N=label_N.astype(np.int32),
        truth_N=true_N.astype(np.int32) if truth else None,
    )
    prints = Fingerprints(digest_N16=np.full((rows, 16), seed, np.uint8), size_N=zeros, mtime_ns_N=zeros)
    with store.write_split(manifest, dim=DIM, fingerprints=prints) as writer:
        good = np.setdiff1d(np.arange(rows), failed)
        writer.put(good, image_ND[good])
        writer.fail(np.array(failed, int), ["truncated"] * len(failed))
        writer.finish()
    return store


def _unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=1, keepdims=True)
