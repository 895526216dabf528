"""CIFAR-10 and CIFAR-100 as their page ships them for Python: pickles that hold labels and pixels.

The source is the folder that holds `cifar-10-batches-py/` or `cifar-100-python/`, that folder itself, or any folder
with the pickles directly in it. The pickles are read without running them (files/pickles.py), and images are read from
them where they lie. Rows are published in the order of the batches.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from cleanctl.datasets.adapter import DatasetAdapter, DatasetRequest
from cleanctl.datasets.cifar_classes import CIFAR10_CLASSES, CIFAR100_CLASSES
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
from cleanctl.files.locate import Located
from cleanctl.files.pickles import array_of, place_of, read_pickle, texts, whole_numbers
from cleanctl.files.pixel_storage import PixelBlock
from cleanctl.records import Dataset, Storage

PAGE = "https://www.cs.toronto.edu/~kriz/cifar.html"
SHAPE = (3, 32, 32)
_PIXELS = 3 * 32 * 32


class Cifar(DatasetAdapter):
    """inner: the folder in the archive. batches: split → its pickles in published order. meta: the pickle of names,
    under `names_field`; labels lie under `label_field`. marks: files that only this dataset has."""

    publication: ClassVar[Publication]
    classes: ClassVar[tuple[str, ...]]
    inner: ClassVar[str]
    batches: ClassVar[dict[str, tuple[str, ...]]]
    meta: ClassVar[str]
    names_field: ClassVar[str]
    label_field: ClassVar[str]
    marks: ClassVar[tuple[str, ...]]

    def recognise(self, request: DatasetRequest) -> bool:
        folder = local_folder(request.located)
        if folder is None or request.labels is not None:
            return False
        return os.path.isdir(f"{folder}/{self.inner}") or all(os.path.isfile(f"{folder}/{file}") for file in self.marks)

    def open(self, request: DatasetRequest) -> Dataset:
        folder = self._folder(request.located)
        self._check_names(request.located, folder)
        classes = class_names(request, self.classes)
        return pixel_dataset(request, self.publication, classes, list(self._blocks(request.located, folder)))

    def reopen(self, located: Located, *, cache: Path | None) -> Storage:
        return self.open(DatasetRequest(located=located)).files

    def _folder(self, located: Located) -> str:
        return folder_of(located, self.publication, self.inner, (self.batches["train"][0], self.batches["test"][0]))

    def _check_names(self, located: Located, folder: str) -> None:
        file = os.path.join(folder, self.meta)
        path = os.path.join(located.location, file)
        content = read_whole(located, self.publication, file)
        names = texts(read_pickle(content.data, path, page=PAGE).get(self.names_field))
        if names is None:
            raise self.publication.odd(path, f"holds no list {self.names_field!r}")
        if tuple(names) != self.classes:
            differ = next((at for at, pair in enumerate(zip(names, self.classes)) if pair[0] != pair[1]), None)
            fact = (
                f"names {len(names)} classes, not {len(self.classes)}"
                if differ is None
                else f"names class {differ} {names[differ]!r}, not {self.classes[differ]!r}"
            )
            raise self.publication.odd(path, fact)

    def _blocks(self, located: Located, folder: str) -> Iterator[LabelledBlock]:
        for split, files in self.batches.items():
            first = 0
            for name in files:
                found = self._block(located, os.path.join(folder, name), split, first)
                first += found.block.count
                yield found

    def _block(self, located: Located, file: str, split: str, first: int) -> LabelledBlock:
        path = os.path.join(located.location, file)
        content = read_whole(located, self.publication, file)
        fields = read_pickle(content.data, path, page=PAGE)
        array = array_of(fields.get("data"))
        if array is None or array.value.dtype.itemsize != 1 or array.value.shape[1:] != (_PIXELS,):
            raise self.publication.odd(path, f"holds no array 'data' of N × {_PIXELS} bytes")
        count = len(array.value)
        label_N = whole_numbers(fields.get(self.label_field))
        label_N = checked_labels(label_N, count, len(self.classes), self.publication, path)
        offset = place_of(array.payload, content.data)
        if offset < 0:
            raise self.publication.odd(path, "was written again by a program that does not keep pixels as plain bytes")
        block = PixelBlock(split, first, count, file, content.size, content.mtime_ns, offset, SHAPE)
        return LabelledBlock(block=block, label_N=label_N)


class Cifar10(Cifar):
    publication = Publication(name="cifar10", title="CIFAR-10", page=PAGE, counts={"train": 50_000, "test": 10_000})
    classes = CIFAR10_CLASSES
    inner = "cifar-10-batches-py"
    batches: ClassVar = {"train": tuple(f"data_batch_{number}" for number in range(1, 6)), "test": ("test_batch",)}
    meta, names_field, label_field = "batches.meta", "label_names", "labels"
    marks = ("data_batch_1",)


class Cifar100(Cifar):
    """With the hundred fine labels; the twenty coarse ones are not used."""

    publication = Publication(name="cifar100", title="CIFAR-100", page=PAGE, counts={"train": 50_000, "test": 10_000})
    classes = CIFAR100_CLASSES
    inner = "cifar-100-python"
    batches: ClassVar = {"train": ("train",), "test": ("test",)}
    meta, names_field, label_field = "meta", "fine_label_names", "fine_labels"
    marks = ("train", "meta")
