"""Stores of any size with embeddings of CLIP's geometry: (folder, rows, prompts) → a store with one split, `train`.

A block of 65,536 rows is drawn from a seed of its own, so a smaller store holds the first rows of a larger one, and
the classes are the same whatever the number of prompts. 512 dimensions, 1,000 classes, 40 % symmetric noise. A million
rows take 1.1 GB of disk and about 15 s; building holds the keys and one block.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bench.geometry import CHUNK, Generator

CLASSES, DIM, NOISE = 1_000, 512, 0.4
IMAGES, LABELS = 0, 1  # streams of random numbers of a block


def build(path: Path, rows: int, *, prompts: int | None = None, classes: int = CLASSES) -> None:
    """prompts: over all classes; None is one of each."""
    from cleanctl.records import Fingerprints, SplitManifest, TextEmbeddings
    from cleanctl.store import Store

    prompts = classes if prompts is None else prompts
    generator = Generator(dim=DIM, classes=classes, prompts=prompts)
    store = Store.create(path, classes=[f"c{k}" for k in range(classes)], encoder={"model": "synthetic"})
    store.write_text(
        TextEmbeddings(embedding_PD=generator.text_PD, class_P=generator.class_P, prompts=("",) * prompts), {}
    )
    label_N = np.concatenate([_labels(start, rows, classes)[1] for start in range(0, rows, CHUNK)])
    zero_N = np.zeros(rows, np.int64)
    fingerprints = Fingerprints(digest_N16=np.zeros((rows, 16), np.uint8), size_N=zero_N, mtime_ns_N=zero_N)
    manifest = SplitManifest(split="train", keys=[f"{row:09d}" for row in range(rows)], label_N=label_N)
    with store.write_split(manifest, dim=DIM, fingerprints=fingerprints) as writer:
        for start in range(0, rows, CHUNK):
            truth_B, _ = _labels(start, rows, classes)
            image_BD = generator.images(truth_B, np.random.default_rng((start, IMAGES)))
            writer.put(np.arange(start, start + len(truth_B)), image_BD)
        writer.finish()


def _labels(start: int, rows: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """(true, noisy) int32 labels of the block that begins at `start`."""
    rng = np.random.default_rng((start, LABELS))
    truth_B = rng.integers(0, classes, CHUNK).astype(np.int32)
    label_B = np.where(rng.random(CHUNK) < NOISE, rng.integers(0, classes, CHUNK), truth_B).astype(np.int32)
    count = min(CHUNK, rows - start)
    return truth_B[:count], label_B[:count]
