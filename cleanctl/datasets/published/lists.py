"""What published layouts share: files of this machine that list `path label`, and the Dataset that such pairs make."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from cleanctl.datasets.adapter import DatasetRequest
from cleanctl.errors import InputError, UsageError
from cleanctl.paths import is_url
from cleanctl.records import Dataset, SplitManifest

Pairs = Sequence[tuple[str, int]]


def root_of(request: DatasetRequest, name: str) -> Path:
    """The dataset's folder. UsageError for a tar or a URL."""
    located = request.located
    if located.file is not None or is_url(located.location):
        raise UsageError(
            f"--dataset {name} was asked for, and {located.location!r} is no folder of this machine.",
            do="Give the dataset's folder as its authors ship it.",
        )
    return Path(located.location)


def read_lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as exc:
        raise InputError(
            f"The file {str(file)!r} of this layout cannot be read: {exc}.",
            do="Give the dataset's folder as its authors ship it, or use --labels.",
        ) from exc


def read_pairs(file: Path) -> list[tuple[str, int]]:
    """Lines `path label`, in the file's order."""
    pairs = []
    for number, line in enumerate(read_lines(file), start=1):
        key, _, label = line.strip().rpartition(" ")
        if not line.strip():
            continue
        if not key or not label.isdecimal():
            raise InputError(
                f"Line {number} of {str(file)!r} is {line!r}, not a path and a label.",
                do="Give the dataset's folder as its authors ship it, or use --labels.",
            )
        pairs.append((key, int(label)))
    return pairs


def listed_dataset(
    request: DatasetRequest,
    layout: str,
    classes: tuple[str, ...],
    pairs: Mapping[str, Pairs],
    *,
    ordered: bool,
    left_out: int = 0,
    notes: tuple[str, ...] = (),
) -> Dataset:
    """pairs: split → (key, label) of each image; with `ordered` in the published order, which noise is drawn in."""
    splits = [_manifest(split, found, layout, classes, ordered) for split, found in sorted(pairs.items()) if found]
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
    )


def _manifest(split: str, pairs: Pairs, layout: str, classes: tuple[str, ...], ordered: bool) -> SplitManifest:
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
    return SplitManifest(
        split=split,
        keys=[key for key, _ in found],
        label_N=np.array([label for _, label in found], dtype=np.int32),
        published_N=place_N if ordered else None,
    )
