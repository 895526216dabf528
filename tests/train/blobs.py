"""The tests' images and store, importable by the process that a test kills.

Four classes of 16-px images, a bright blob whose place and colour tell the class, on noise. A share of the training
labels is wrong; the selection `clean` keeps most of the right ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from cleanctl.files.fingerprints import no_fingerprints
from cleanctl.images.geometry import Crop, draws_of
from cleanctl.records import Fingerprints, ImageBatch, PixelSpec, SplitManifest
from cleanctl.store import Store

CLASSES = ("north", "east", "south", "west")
SIDE = 16
RECIPE = """
summary = "test"
network = "fastconv-w4"
image_size = 16
load_size = 16
epochs = 3
batch_size = 16
learning_rate = 0.05
weight_decay = 5e-4
schedule = "onecycle"
warmup = 1.0
crop = "pad"
pad = 2
policy = "autoaugment-cifar10"
mixup_beta = 1.0
theta_absorb = 0.5
theta_relabel = 0.5
"""


def draw(label_N: np.ndarray, seed: int) -> np.ndarray:
    """uint8 (N, 16, 16, 3)."""
    rng = np.random.default_rng(seed)
    pixel = rng.integers(0, 110, (len(label_N), SIDE, SIDE, 3), dtype=np.uint8)
    corner = np.array([(2, 6), (6, 10), (10, 6), (6, 2)])
    for image, label in zip(pixel, label_N):
        top, left = corner[label] + rng.integers(-1, 2, 2)
        image[top : top + 4, left : left + 4, label % 3] = 250
    return pixel


class MemoryLoader:
    """A SeededLoader over an array; rows in `broken` cannot be read. Reuses its buffer, as the contract allows.

    A random crop is a shift by the draw of its place in the epoch.
    """

    name = "memory"

    def __init__(self, pixel: np.ndarray, broken: frozenset[int] = frozenset(), crop: Crop | None = None) -> None:
        self.pixel, self.broken, self.crop, self.asked, self.closed = pixel, broken, crop, 0, False
        self._buffer = np.empty((0, *pixel.shape[1:]), np.uint8)

    def batches(self, row_N: np.ndarray, *, batch_size: int, seed: int = 0, done: int = 0) -> Iterator[ImageBatch]:
        shift_N = draws_of(len(row_N), seed, done) % 5 if self.crop else np.zeros(len(row_N), int)
        if len(self._buffer) < batch_size:
            self._buffer = np.empty((batch_size, *self.pixel.shape[1:]), np.uint8)
        for at in range(0, len(row_N), batch_size):
            row = np.asarray(row_N[at : at + batch_size])
            self.asked += len(row)
            view = self._buffer[: len(row)]
            for image, pixel, shift in zip(view, self.pixel[row], shift_N[at : at + batch_size]):
                image[:] = np.roll(pixel, shift, axis=1)
            ok = np.array([int(r) not in self.broken for r in row])
            view[~ok] = 255
            reason = {int(r): "truncated" for r in row[~ok]}
            fingerprints = no_fingerprints(len(row))
            yield ImageBatch(row_B=row, pixel_BSSC=view, ok_B=ok, reason=reason, fingerprints=fingerprints)

    def close(self) -> None:
        self.closed = True


def sizes(split: str) -> int:
    return {"train": 160, "test": 80, "val": 80}[split]


def truth(split: str) -> np.ndarray:
    return (np.arange(sizes(split)) % len(CLASSES)).astype(np.int32)


def given(split: str) -> np.ndarray:
    """A quarter of the training labels is wrong: each fifth and each tenth row takes the next class.

    All of `val` is called north.
    """
    right = truth(split)
    if split == "val":
        return np.zeros_like(right)
    if split == "test":
        return right
    wrong = (np.arange(len(right)) % 5 == 0) | (np.arange(len(right)) % 10 == 3)
    return np.where(wrong, (right + 1) % len(CLASSES), right).astype(np.int32)


def make_store(
    path: Path,
    *,
    splits: tuple[str, ...] = ("train", "test"),
    failed: tuple[int, ...] = (),
    test_truth: np.ndarray | None = None,
    test_label: np.ndarray | None = None,
) -> Store:
    store = Store.create(path, classes=CLASSES, encoder={"name": "none"}, source={"root": "memory"})
    for split in splits:
        count = sizes(split)
        label = test_label if split == "test" and test_label is not None else given(split)
        manifest = SplitManifest(
            split=split,
            keys=[f"{row:04}.png" for row in range(count)],
            label_N=label.astype(np.int32),
            truth_N=truth(split) if split == "train" else test_truth,
        )
        fingerprints = Fingerprints(
            digest_N16=np.ones((count, 16), np.uint8),
            size_N=np.ones(count, np.int64),
            mtime_ns_N=np.ones(count, np.int64),
        )
        with store.write_split(manifest, dim=4, fingerprints=fingerprints) as writer:
            bad = np.array(failed if split == "train" else (), dtype=np.int64)
            good = np.setdiff1d(np.arange(count), bad)
            writer.put(good, np.full((len(good), 4), 0.5, np.float16))
            if len(bad):
                writer.fail(bad, ["truncated"] * len(bad))
            writer.finish()
    keep = (given("train") == truth("train")) & (np.arange(sizes("train")) % 7 != 0)
    keep[list(failed)] = False
    store.split("train").write_result("selections", "clean", {"keep": keep}, {})
    return store


def loader_of(split: str, spec: PixelSpec, crop: Crop | None = None) -> MemoryLoader:
    assert spec.size == SIDE
    return MemoryLoader(draw(truth(split), seed={"train": 1, "test": 2, "val": 3}[split]), crop=crop)
