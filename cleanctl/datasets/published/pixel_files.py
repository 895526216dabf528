"""What CIFAR and MNIST share: whole files of bare pixels with labels, and the Dataset whose rows lie in them.

Errors name the file, what was expected of it, and the page that it can be had from.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from cleanctl.datasets.adapter import DatasetRequest
from cleanctl.errors import InputError, UsageError
from cleanctl.files.local import read_file
from cleanctl.files.locate import Located
from cleanctl.files.pixel_storage import DIGITS, MOST_ROWS, PixelBlock, PixelStorage
from cleanctl.paths import is_url
from cleanctl.records import Dataset, FileContent, SplitManifest


@dataclass(frozen=True, kw_only=True)
class Publication:
    """A dataset as its authors ship it. page: where to get it. counts: images of each split."""

    name: str
    title: str
    page: str
    counts: Mapping[str, int]

    def odd(self, path: str, fact: str) -> InputError:
        """The error for a file that is not as it was shipped; `fact` follows its name."""
        return InputError(
            f"The file {path!r} {fact}.", so=f"It is not as {self.title} is shipped.", do=f"Get it from {self.page}."
        )


@dataclass(frozen=True, kw_only=True)
class LabelledBlock:
    """Images that lie in one file, and their labels in that order, int (count,)."""

    block: PixelBlock
    label_N: np.ndarray


def local_folder(located: Located) -> str | None:
    """The folder that a SOURCE names on this machine; None for a file or a URL."""
    return None if located.file is not None or is_url(located.location) else located.location


def folder_of(located: Located, publication: Publication, inner: str, marks: tuple[str, ...]) -> str:
    """The folder that holds one of `marks`: `inner` below the source, or else the source. Ends in no slash, relative
    to the source; empty for the source itself. Raises UsageError or InputError."""
    location = local_folder(located)
    if location is None:
        raise UsageError(
            f"--dataset {publication.name} was asked for, and {located.location!r} is no folder of this machine.",
            do="Give the folder that the dataset's archive was unpacked to.",
        )
    for folder in (inner, ""):
        if any(os.path.lexists(os.path.join(location, folder, mark)) for mark in marks):
            return folder
    raise InputError(
        f"{location!r} holds neither {inner}/ with the files of {publication.title} nor the files themselves: "
        f"there is no {' and no '.join(marks)}.",
        do=f"Give the folder that the archive from {publication.page} was unpacked to.",
    )


def read_whole(located: Located, publication: Publication, file: str) -> FileContent:
    """A file of the dataset by its path relative to the source. Raises InputError."""
    path = os.path.join(located.location, file)
    content = read_file(path)
    if content.reason == "file not found":
        raise InputError(
            f"The file {path!r} of {publication.title} is missing.",
            do=f"Get it from {publication.page}; the folder must be as its archive unpacks it.",
        )
    if content.reason:
        raise publication.odd(path, f"cannot be read: {content.reason}")
    return content


def checked_labels(
    label_N: np.ndarray | None, count: int, classes: int, publication: Publication, path: str
) -> np.ndarray:
    """int32 (count,); InputError where there are none, too few, or one that is no class."""
    if label_N is None:
        raise publication.odd(path, "holds no list of labels")
    if len(label_N) != count:
        raise publication.odd(path, f"holds {len(label_N):,} labels for {count:,} images")
    wrong = np.flatnonzero((label_N < 0) | (label_N >= classes))
    if len(wrong):
        raise publication.odd(
            path, f"has the label {label_N[wrong[0]]} in row {wrong[0]:,}; the classes are 0 to {classes - 1}"
        )
    return label_N.astype(np.int32)


def pixel_dataset(
    request: DatasetRequest, publication: Publication, classes: tuple[str, ...], found: list[LabelledBlock]
) -> Dataset:
    """found: in published order; the blocks of a split together. The published order of rows is that of the keys."""
    location = request.located.location
    label_of: dict[str, list[np.ndarray]] = {}
    for one in found:
        label_of.setdefault(one.block.split, []).append(one.label_N)
    splits, notes = [], []
    for split, labels in sorted(label_of.items()):
        label_N = np.concatenate(labels)
        count = len(label_N)
        if count > MOST_ROWS:
            raise publication.odd(location, f"has {count:,} images in split {split!r}, more than {MOST_ROWS:,}")
        if count != publication.counts[split]:
            shipped = publication.counts[split]
            notes.append(f"Split {split!r} has {count:,} images; {publication.title} is shipped with {shipped:,}.")
        splits.append(
            SplitManifest(
                split=split,
                keys=[f"{split}/{row:0{DIGITS}d}" for row in range(count)],
                label_N=label_N,
                published_N=np.arange(count, dtype=np.int64),
            )
        )
    return Dataset(
        files=PixelStorage(location, tuple(one.block for one in found)),
        layout=publication.name,
        classes=classes,
        splits=tuple(splits),
        notes=tuple(notes),
    )
