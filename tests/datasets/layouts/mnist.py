"""MNIST as its page ships it, small: the training files as .gz, the test files unpacked."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
from published_copy import Copy

FIRST_LABELS = (5, 0, 4, 1, 9, 2, 1, 3, 1, 4)


def idx(values: np.ndarray) -> bytes:
    """uint8 of 1 or 3 dimensions as an idx file."""
    return struct.pack(f">I{values.ndim}I", 0x800 + values.ndim, *values.shape) + values.astype(np.uint8).tobytes()


def digits(label_N: np.ndarray, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    pixel_NHW = rng.integers(0, 60, (len(label_N), 28, 28))
    for image, label in zip(pixel_NHW, label_N):
        image[2 * label : 2 * label + 6] += 180
    return pixel_NHW.astype(np.uint8)


def labels(count: int, seed: int, *, first: tuple[int, ...]) -> np.ndarray:
    label_N = np.random.default_rng(seed).integers(0, 10, count)
    label_N[: len(first)] = first
    return label_N


def build(folder: Path, *, train: int = 40, test: int = 12, packed: tuple[str, ...] = ("train",)) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for stem, count, seed in (("train", train, 0), ("t10k", test, 1)):
        label_N = labels(count, seed, first=FIRST_LABELS if stem == "train" else ())
        for name, values in (
            (f"{stem}-images-idx3-ubyte", digits(label_N, seed)),
            (f"{stem}-labels-idx1-ubyte", label_N),
        ):
            data = idx(values)
            if stem in packed:
                (folder / f"{name}.gz").write_bytes(gzip.compress(data, mtime=0))
            else:
                (folder / name).write_bytes(data)


def _rows(label_N: np.ndarray, split: str) -> list[tuple[str, int]]:
    return [(f"{split}/{row:05d}", label) for row, label in enumerate(label_N.tolist())]


COPIES = [
    Copy(
        dataset="mnist",
        build=build,
        rows={
            "train": _rows(labels(40, 0, first=FIRST_LABELS), "train"),
            "test": _rows(labels(12, 1, first=()), "test"),
        },
        num_classes=10,
        names={number: str(number) for number in range(10)},
        ordered=("train", "test"),
        annotations=("train-labels-idx1-ubyte.gz", "t10k-images-idx3-ubyte"),
    )
]
