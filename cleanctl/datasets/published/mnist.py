"""MNIST as its page ships it: four idx files, plain or .gz, in the source or in torchvision's `MNIST/raw/`.

Grey images of 28 × 28 pixels become RGB. Rows are published in the files' order. FashionMNIST and KMNIST have files of
the same names: they are taken only with `--classes`, which names their classes.
"""

from __future__ import annotations

import gzip
import math
import os
import struct
import zlib
from pathlib import Path

import numpy as np

from cleanctl.datasets.adapter import DatasetAdapter, DatasetRequest
from cleanctl.datasets.published.lists import class_names
from cleanctl.datasets.published.pixel_files import (
    LabelledBlock,
    Publication,
    checked_labels,
    folder_of,
    local_folder,
    pixel_dataset,
    read_whole,
)
from cleanctl.errors import InputError
from cleanctl.files.locate import Located
from cleanctl.files.pixel_storage import PixelBlock
from cleanctl.records import Dataset, FileContent, Storage

CLASSES = tuple("0123456789")
MNIST = Publication(
    name="mnist",
    title="MNIST",
    page="http://yann.lecun.com/exdb/mnist/ (or a mirror of it)",
    counts={"train": 60_000, "test": 10_000},
)
FIRST_LABELS = (5, 0, 4, 1, 9, 2, 1, 3, 1, 4)  # of the published training split; they tell it from FashionMNIST
INNER = "MNIST/raw"
_STEMS = {"train": "train", "test": "t10k"}
_IMAGES, _LABELS = ("images", 3, 2051), ("labels", 1, 2049)  # name, dimensions, magic number


class Mnist(DatasetAdapter):
    def recognise(self, request: DatasetRequest) -> bool:
        folder = local_folder(request.located)
        if folder is None or request.labels is not None:
            return False
        return any(os.path.isfile(f"{folder}/{inner}{name}") for inner in ("", f"{INNER}/") for name in _names("train"))

    def open(self, request: DatasetRequest) -> Dataset:
        classes = class_names(request, CLASSES)
        located = request.located
        folder = folder_of(located, MNIST, INNER, (*_names("train"), *_names("t10k")))
        found = [_block(located, folder, split, len(classes)) for split in _STEMS]
        first_labels = tuple(found[0].label_N[: len(FIRST_LABELS)].tolist())
        if request.classes is None and first_labels != FIRST_LABELS:
            raise InputError(
                f"The first training labels in {located.location!r} are {', '.join(map(str, first_labels))}; MNIST's "
                f"are {', '.join(map(str, FIRST_LABELS))}.",
                so="FashionMNIST, KMNIST and others have files of the same names, and other classes.",
                do="Name the classes with --classes FILE, a name a line in label order.",
            )
        return pixel_dataset(request, MNIST, classes, found)

    def reopen(self, located: Located, *, cache: Path | None) -> Storage:
        folder = folder_of(located, MNIST, INNER, (*_names("train"), *_names("t10k")))
        found = [_block(located, folder, split, 256) for split in _STEMS]  # the labels are the store's by now
        return pixel_dataset(DatasetRequest(located=located), MNIST, CLASSES, found).files


def _names(stem: str, kind: str = "images", dimensions: int = 3) -> tuple[str, ...]:
    """As the page names a file, and as some unpack it."""
    plain = (f"{stem}-{kind}-idx{dimensions}-ubyte", f"{stem}-{kind}.idx{dimensions}-ubyte")
    return (*plain, f"{plain[0]}.gz")


def _block(located: Located, folder: str, split: str, classes: int) -> LabelledBlock:
    file, content, data, (count, height, width) = _read(located, folder, split, *_IMAGES)
    label_file, _, label_data, _ = _read(located, folder, split, *_LABELS)
    label_N = np.frombuffer(label_data, np.uint8, offset=8).astype(np.int64)
    label_N = checked_labels(label_N, count, classes, MNIST, os.path.join(located.location, label_file))
    offset = len(data) - count * height * width
    block = PixelBlock(split, 0, count, file, content.size, content.mtime_ns, offset, (1, height, width))
    return LabelledBlock(block=block, label_N=label_N)


def _read(
    located: Located, folder: str, split: str, kind: str, dimensions: int, magic: int
) -> tuple[str, FileContent, bytes, tuple[int, ...]]:
    """An idx file: its path relative to the source, the file, its unpacked content, and its sides."""
    names = [os.path.join(folder, name) for name in _names(_STEMS[split], kind, dimensions)]
    file = next((name for name in names if os.path.lexists(os.path.join(located.location, name))), names[0])
    path = os.path.join(located.location, file)
    content = read_whole(located, MNIST, file)
    try:
        data = gzip.decompress(content.data) if file.endswith(".gz") else content.data
    except (OSError, EOFError, zlib.error) as exc:
        raise MNIST.odd(path, f"cannot be unpacked: {exc}") from exc
    head = struct.Struct(f">{1 + dimensions}I")
    if len(data) < head.size or struct.unpack_from(">I", data)[0] != magic:
        raise MNIST.odd(path, f"does not begin with the number {magic} of an idx file of {kind}")
    sides = head.unpack_from(data)[1:]
    expected = head.size + math.prod(sides)
    if len(data) != expected or not all(sides):
        raise MNIST.odd(path, f"has {len(data):,} bytes; its head promises {expected:,}")
    return file, content, data, sides
