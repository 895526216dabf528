"""What scoring and selecting hold grows with the rows by a stated number of bytes each, and with nothing else."""

from __future__ import annotations

import gc
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from cleanctl.config import SelectConfig
from cleanctl.records import Fingerprints, SplitManifest, TextEmbeddings
from cleanctl.score import blocks
from cleanctl.score.compute import score_split
from cleanctl.selection.select import select_split
from cleanctl.store import Store

CLASSES, DIM, BLOCK = 6, 4, 8_192
FEW, MANY = BLOCK, 3 * BLOCK


def build(path: Path, rows: int) -> Store:
    rng = np.random.default_rng(0)
    text_PD = rng.standard_normal((CLASSES, DIM)).astype(np.float32)
    text_PD /= np.linalg.norm(text_PD, axis=1, keepdims=True)
    store = Store.create(path, classes=[f"c{k}" for k in range(CLASSES)], encoder={"model": "synthetic"})
    classes = np.arange(CLASSES, dtype=np.int32)
    store.write_text(TextEmbeddings(embedding_PD=text_PD, class_P=classes, prompts=("",) * CLASSES), {})
    label_N = rng.integers(0, CLASSES, rows).astype(np.int32)
    zero_N = np.zeros(rows, np.int64)
    prints = Fingerprints(digest_N16=np.zeros((rows, 16), np.uint8), size_N=zero_N, mtime_ns_N=zero_N)
    manifest = SplitManifest(split="train", keys=[f"{row:09d}" for row in range(rows)], label_N=label_N)
    with store.write_split(manifest, dim=DIM, fingerprints=prints) as writer:
        for start in range(0, rows, BLOCK):
            image_BD = text_PD[label_N[start : start + BLOCK]] + 0.6 * rng.standard_normal((BLOCK, DIM))
            image_BD /= np.linalg.norm(image_BD, axis=1, keepdims=True)
            writer.put(np.arange(start, start + BLOCK), image_BD.astype(np.float16))
        writer.finish()
    return store


@pytest.fixture
def peaks(tmp_path, monkeypatch) -> dict[int, tuple[int, int]]:
    """Rows → highest traced bytes while they were scored, and while they were selected."""
    monkeypatch.setattr(blocks, "CACHE_BYTES", 0)  # a budget that does not grow with the rows
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # how many tiles several threads have in hand at once is chance
    found, config = {}, SelectConfig()
    store = build(tmp_path / "first", FEW)
    for step in (score_split, select_split):  # what is imported on the way does not count
        step(store, store.split("train"), config)
    for rows in (FEW, MANY):
        store = build(tmp_path / str(rows), rows)
        split = store.split("train")
        gc.collect()
        tracemalloc.start()
        try:
            score_split(store, split, config)
            scoring = tracemalloc.get_traced_memory()[1]
            gc.collect()
            tracemalloc.reset_peak()
            select_split(store, split, config)
            found[rows] = scoring, tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    return found


def test_scoring_and_selecting_hold_a_stated_number_of_bytes_a_row(peaks):
    """The numbers of docs/scale.md, with a fifth to spare; embeddings alone would be 2 × DIM."""
    scoring, selecting = ((peaks[MANY][step] - peaks[FEW][step]) / (MANY - FEW) for step in (0, 1))
    assert scoring < 220, scoring  # mostly of the mixtures, which take TOGETHER samples at a time
    assert selecting < 120, selecting
