"""A store of a few hundred rows in small blocks, as processes of any kind read it: its files say how large they are."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np

from cleanctl import api
from cleanctl.config import SelectConfig
from cleanctl.records import Fingerprints, SplitManifest, TextEmbeddings
from cleanctl.store import Store, schema

_spec = importlib.util.spec_from_file_location("geometry", Path(__file__).parents[2] / "bench" / "geometry.py")
assert _spec is not None
assert _spec.loader is not None
geometry = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(geometry)

# Every scorer that select computes, in one strategy: its columns hold each rule's score and decision.
ALL = (
    "zeroshot.loss | zeroshot.consistency | zeroshot.similarity | logistic.loss | logistic.consistency | knn.match | "
    "knn.loss | joint.posterior | probe.margin"
)
ROWS, CLASSES, DIM = 700, 5, 32
CLOSE = 2e-3  # of probabilities: two fits of logistic may stop a step apart (5e-4), and scaling in a class stretches it


def make_store(path: Path, *, block_rows: int = 64, failed: tuple[int, ...] = (3, 650), by_label: bool = False) -> Path:
    """by_label: rows in the order of their labels, so that most parts lack most classes."""
    data = geometry.clip_like(ROWS, dim=DIM, classes=CLASSES, prompts=13, noise=0.4, seed=1)
    order = np.argsort(data.label_N, kind="stable") if by_label else np.arange(ROWS)
    before = schema.BLOCK_ROWS, schema.CHUNK_ROWS
    schema.BLOCK_ROWS, schema.CHUNK_ROWS = block_rows, 16
    try:
        store = Store.create(path, classes=[f"class {k}" for k in range(CLASSES)], encoder={"model": "synthetic"})
        stamp = np.zeros(ROWS, np.int64)
        fingerprints = Fingerprints(digest_N16=np.zeros((ROWS, 16), np.uint8), size_N=stamp, mtime_ns_N=stamp)
        keys = [f"{row:05d}.jpg" for row in range(ROWS)]
        manifest = SplitManifest(split="train", keys=keys, label_N=data.label_N[order], truth_N=data.truth_N[order])
        with store.write_split(manifest, dim=DIM, fingerprints=fingerprints) as writer:
            rows = np.setdiff1d(np.arange(ROWS), failed)
            writer.put(rows, data.image_ND[order][rows])
            writer.fail(np.array(failed), ["truncated"] * len(failed))
            writer.finish()
        prompts = tuple(f"p{number}" for number in range(len(data.class_P)))
        store.write_text(TextEmbeddings(embedding_PD=data.text_PD, class_P=data.class_P, prompts=prompts), {})
    finally:
        schema.BLOCK_ROWS, schema.CHUNK_ROWS = before
    return path


def damage(path: Path) -> None:
    """Changes a byte of the embeddings in the eleventh of the files."""
    damaged = path / "train" / "embedding" / "c" / "10" / "0"
    values = bytearray(damaged.read_bytes())
    values[100] ^= 0xFF
    damaged.write_bytes(values)


def selected(path: Path, strategy: str, **options) -> dict[str, np.ndarray]:
    """The stored columns of a selection made now, from scores made now."""
    api.select(SelectConfig(strategy=strategy, name="one", device="cpu", **options), store=path)
    return Store.open(path).split("train").read_result("selections", "one").arrays


def assert_same_selection(found: dict[str, np.ndarray], alone: dict[str, np.ndarray], strategy: str) -> None:
    """The same columns, the same rows kept, the same scores as far as two fits are."""
    assert list(found) == list(alone)
    for name, values in alone.items():
        if values.dtype.kind == "f":
            np.testing.assert_allclose(found[name], values, atol=CLOSE, err_msg=f"{strategy}: {name}")
        else:
            np.testing.assert_array_equal(found[name], values, err_msg=f"{strategy}: {name}")
