"""What published layouts share: a folder of this machine, its annotation files, and the Dataset that they make.

A layout is a `PublishedDataset`: it recognises a folder by files that no other layout has, and reads what its authors
distribute as they distribute it. Keys are paths relative to the folder.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import ClassVar

import numpy as np

from cleanctl.datasets.adapter import DatasetAdapter, DatasetRequest
from cleanctl.datasets.columns import UNKNOWN
from cleanctl.errors import InputError, UsageError
from cleanctl.files.listing import file_kind, is_utf8
from cleanctl.files.locate import Located
from cleanctl.meant import meant
from cleanctl.paths import is_url
from cleanctl.records import Dataset, SplitManifest

Pairs = Sequence[tuple[str, int]]


@dataclass(frozen=True)
class Home:
    """The folder of a layout. origin: where its files come from, as the object of "it comes with"."""

    name: str
    origin: str
    root: Path

    def missing(self, path: str, holds: str) -> InputError:
        """The error for a file or folder that is not there."""
        return InputError(
            f"{path!r} of the layout {self.name} is not in {str(self.root)!r}.",
            so=f"It holds {holds}.",
            do=f"It comes with {self.origin}: bring it as it is distributed, or give labels of your own with --labels.",
        )

    def odd(self, file: str, number: int, line: str, expected: str) -> InputError:
        """The error for a line that is not what it must be."""
        return InputError(
            f"Line {number} of {str(self.root / file)!r} is {line[:200]!r}; {expected} was expected.",
            so=f"The layout {self.name} cannot be read.",
            do=f"Take the file again from {self.origin}.",
        )

    def lines(self, file: str, holds: str) -> list[tuple[int, str]]:
        """(number from 1, text without white space around it) of each line that is not empty."""
        try:
            text = (self.root / file).read_text(encoding="utf-8-sig")
        except (FileNotFoundError, NotADirectoryError) as exc:
            raise self.missing(file, holds) from exc
        except (OSError, UnicodeDecodeError) as exc:
            raise InputError(
                f"{str(self.root / file)!r} cannot be read: {exc}.", do=f"Take the file again from {self.origin}."
            ) from exc
        stripped = ((number, line.strip()) for number, line in enumerate(text.split("\n"), start=1))
        return [(number, line) for number, line in stripped if line]

    def pairs(self, file: str, holds: str) -> list[tuple[str, int]]:
        """Lines `path label`, in the file's order."""
        pairs = []
        for number, line in self.lines(file, holds):
            key, _, label = line.rpartition(" ")
            if not key.strip() or not label.isdecimal():
                raise self.odd(file, number, line, "a path and the number of a class")
            pairs.append((key.strip(), int(label)))
        if not pairs:
            raise InputError(f"{str(self.root / file)!r} is empty.", so=f"It should hold {holds}.")
        return pairs

    def require_folder(self, folder: str, holds: str) -> str:
        """`folder`; InputError where it is not there."""
        if not (self.root / folder).is_dir():
            raise self.missing(f"{folder}/", holds)
        return folder

    def listed(self, folder: str) -> list[Path]:
        """What lies in a folder, hidden ones apart, sorted; nothing where there is no such folder."""
        try:
            found = list((self.root / folder).iterdir()) if (self.root / folder).is_dir() else []
        except OSError as exc:
            raise InputError(f"{str(self.root / folder)!r} cannot be listed: {exc.strerror}.") from exc
        return sorted(path for path in found if not path.name.startswith("."))

    def folders(self, folder: str) -> list[str]:
        """The names of the folders in one, sorted."""
        return [path.name for path in self.listed(folder) if path.is_dir()]

    def images(self, folder: str) -> list[str]:
        """The keys of the images directly in a folder, sorted; none where there is no such folder."""
        names = (path.name for path in self.listed(folder))
        return [f"{folder}/{name}" for name in names if file_kind(name) == "keys" and is_utf8(name)]


class PublishedDataset(DatasetAdapter):
    """name: as in the registry. origin: see Home. counts: split → how many images it is shipped with, where known."""

    name: ClassVar[str]
    origin: ClassVar[str]
    counts: ClassVar[Mapping[str, int]] = {}

    def recognise(self, request: DatasetRequest) -> bool:
        root = _folder(request.located)
        try:
            return root is not None and request.labels is None and self.is_at(root)
        except OSError:  # a folder that cannot be listed tells nothing
            return False

    @abstractmethod
    def is_at(self, root: Path) -> bool:
        """Whether the folder has what no other layout has."""

    def open(self, request: DatasetRequest) -> Dataset:
        root = _folder(request.located)
        if root is None:
            raise UsageError(
                f"--dataset {self.name} was asked for, and {request.located.location!r} is no folder of this machine.",
                do="Give the dataset's folder as its authors ship it.",
            )
        dataset = self.read(Home(self.name, self.origin, root), request)
        return replace(dataset, notes=(*dataset.notes, *self._count_notes(dataset, self.shipped(request))))

    @abstractmethod
    def read(self, home: Home, request: DatasetRequest) -> Dataset: ...

    def shipped(self, request: DatasetRequest) -> Mapping[str, int]:
        """`counts`, less those that a variant changes."""
        return self.counts

    def _count_notes(self, dataset: Dataset, shipped: Mapping[str, int]) -> Iterator[str]:
        for split in dataset.splits:
            count = shipped.get(split.split, len(split))
            if count != len(split):
                yield f"Split {split.split!r} has {len(split):,} images; {self.name} is shipped with {count:,}."


def _folder(located: Located) -> Path | None:
    return None if located.file is not None or is_url(located.location) else Path(located.location)


def choose(request: DatasetRequest, name: str, known: Mapping[str, str]) -> str:
    """The key of `known` that `--variant` names, or its only one; UsageError that lists them with what they are."""
    if request.variant in known:
        return str(request.variant)
    if request.variant is None and len(known) == 1:
        return next(iter(known))
    listed = "; ".join(f"{variant} ({what})" if what else variant for variant, what in known.items())
    if request.variant is None:
        raise UsageError(f"{name} comes in variants, and none was named.", do=f"Name one with --variant: {listed}.")
    near = meant(str(request.variant), known)
    raise UsageError(
        f"--variant is {request.variant!r}, which {name} does not have{near}", do=f"Name one of: {listed}."
    )


def class_names(request: DatasetRequest, own: tuple[str, ...]) -> tuple[str, ...]:
    """The names of `--classes` where they are given, as many as the layout has; else the layout's own."""
    if request.classes is None or len(request.classes) == len(own):
        return own if request.classes is None else request.classes
    raise InputError(
        f"--classes names {len(request.classes)} classes; this dataset has {len(own)}.",
        so="Labels would stand for other classes.",
        do="Name every class, in label order, or leave --classes out.",
    )


def listed_dataset(
    request: DatasetRequest,
    layout: str,
    classes: tuple[str, ...],
    pairs: Mapping[str, Pairs],
    *,
    ordered: Iterable[str] = (),
    truth: Mapping[str, Mapping[str, int]] | None = None,
    left_out: int = 0,
    notes: tuple[str, ...] = (),
    variant: str = "",
) -> Dataset:
    """pairs: split → (key, label) of each image.

    ordered: the splits whose pairs stand in the published order, which noise is drawn in. truth: split → key → true
    class, for splits of which some are known.
    """
    ordered = set(ordered)
    splits = [
        _manifest(split, found, layout, classes, split in ordered, (truth or {}).get(split))
        for split, found in sorted(pairs.items())
        if found
    ]
    if not splits:
        raise InputError(
            f"No images of the layout {layout} were found in {request.located.location!r}.",
            do="Give the dataset's folder as its authors ship it.",
        )
    return Dataset(
        files=request.located.storage,
        layout=layout,
        classes=classes,
        splits=tuple(splits),
        left_out=left_out,
        notes=notes,
        variant=variant,
    )


def _manifest(
    split: str,
    pairs: Pairs,
    layout: str,
    classes: tuple[str, ...],
    ordered: bool,
    truth: Mapping[str, int] | None,
) -> SplitManifest:
    place_N = np.array(sorted(range(len(pairs)), key=lambda place: pairs[place][0]), dtype=np.int64)
    found = [pairs[place] for place in place_N.tolist()]
    wrong = next((pair for pair in found if not 0 <= pair[1] < len(classes)), None)
    if wrong is not None:
        raise InputError(
            f"{wrong[0]!r} has the unknown class {wrong[1]}; {layout} has {len(classes)} classes.",
            do="Check the files, or name every class in the file given to --classes.",
        )
    twice = next((key for (key, _), (after, _) in pairwise(found) if key == after), None)
    if twice is not None:
        raise InputError(f"{twice!r} is listed twice in split {split!r}.", do="Keep one line for each image.")
    keys = [key for key, _ in found]
    return SplitManifest(
        split=split,
        keys=keys,
        label_N=np.array([label for _, label in found], dtype=np.int32),
        truth_N=None if truth is None else np.array([truth.get(key, UNKNOWN) for key in keys], dtype=np.int32),
        published_N=place_N if ordered else None,
    )
