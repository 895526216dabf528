"""Label sets that others published, checked against the dataset's own labels. Nothing is run (files/pickles.py).

    human:SET   CIFAR-10N and CIFAR-100N: CIFAR-10_human.pt, CIFAR-100_human.pt
    seal:RATE   instance-dependent noise of SEAL as CSV: dependent0.1.csv … dependent0.4.csv
    csv:FILE    a CSV with the columns label (as the dataset's own) and label_noisy
    json:FILE   a cache of CLIPCleaner or DeFT, or a label set of cleanctl

The first two are looked for below the source and beside it, or given with --noise-file.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cleanctl.config import Noise
from cleanctl.datasets.cifar_classes import CIFAR10_CLASSES, CIFAR100_CLASSES
from cleanctl.datasets.columns import read_columns
from cleanctl.datasets.noise.label_sets import cached_labels
from cleanctl.errors import InputError, UsageError
from cleanctl.files.locate import read_named_file
from cleanctl.files.pickles import read_torch_pickle, whole_numbers
from cleanctl.paths import is_url

HUMAN_PAGE = "https://github.com/UCSC-REAL/cifar-10-100n"
SEAL_PAGE = "https://github.com/chenpf1025/IDN"
_DEPTH = 3  # folders below the source that are searched
_FIELDS = {
    "aggre": "aggre_label", "random1": "random_label1", "random2": "random_label2", "random3": "random_label3",
    "worse": "worse_label", "noisy": "noisy_label",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ReadLabels:
    """noisy_N: int32 (N,). file: its path; digest: its SHA-256."""

    noisy_N: np.ndarray
    file: str
    digest: str


def read_labels(
    noise: Noise, clean_N: np.ndarray, classes: Sequence[str], *, root: str, given: str | None
) -> ReadLabels:
    """The label set that `noise` names, for rows whose own labels are clean_N.

    root: the source; given: `--noise-file`. Raises UsageError, InputError.
    """
    if noise.kind == "human":
        name, field = _human(noise.name, classes)
        file = given or _found(root, name, HUMAN_PAGE)
        data = read_named_file(file, "--noise-file")
        fields = read_torch_pickle(data, file, page=HUMAN_PAGE)
        noisy, clean = (_numbers(whole_numbers(fields.get(field)), file, field) for field in (field, "clean_label"))
    elif noise.kind == "json":
        data = read_named_file(noise.name, "--noise")
        file, noisy, clean = noise.name, np.array(cached_labels(data, noise.name), dtype=np.int64), None
    else:
        file = noise.name or given or _found(root, f"dependent{noise.rate:g}.csv", SEAL_PAGE)
        data = read_named_file(file, "--noise" if noise.kind == "csv" else "--noise-file")
        noisy, clean = _columns(file)
    noisy_N = checked(noisy, clean_N, len(classes), file)
    if clean is not None:
        _require_same(clean, clean_N, file)
    return ReadLabels(noisy_N=noisy_N, file=file, digest=hashlib.sha256(data).hexdigest())


def read_cache(file: str, clean_N: np.ndarray, classes: Sequence[str]) -> ReadLabels:
    """A cache of CLIPCleaner or DeFT, or a label set of cleanctl, checked in length and range."""
    data = read_named_file(file, "--noise-file")
    noisy_N = checked(np.array(cached_labels(data, file), dtype=np.int64), clean_N, len(classes), file)
    return ReadLabels(noisy_N=noisy_N, file=file, digest=hashlib.sha256(data).hexdigest())


def checked(noisy: np.ndarray, clean_N: np.ndarray, classes: int, file: str) -> np.ndarray:
    """int32 (N,); InputError for another length or a label that is no class."""
    if len(noisy) != len(clean_N):
        raise InputError(
            f"The label set {file!r} has {len(noisy):,} rows; the split has {len(clean_N):,}.",
            so="Labels would come to the wrong images.",
            do="Give the label set that belongs to this dataset.",
        )
    wrong = np.flatnonzero((noisy < 0) | (noisy >= classes))
    if len(wrong):
        raise InputError(
            f"Row {wrong[0]:,} of {file!r} has the label {noisy[wrong[0]]}; the classes are 0 to {classes - 1}.",
            do="Give the label set that belongs to this dataset.",
        )
    return noisy.astype(np.int32)


def _human(name: str, classes: Sequence[str]) -> tuple[str, str]:
    """The file of a human label set and its field in it."""
    whose = {CIFAR10_CLASSES: ("CIFAR-10", name != "noisy"), CIFAR100_CLASSES: ("CIFAR-100", name == "noisy")}
    dataset, has_it = whose.get(tuple(classes), ("", False))
    if has_it:
        return f"{dataset}_human.pt", _FIELDS[name]
    raise UsageError(
        f"--noise human:{name} is a label set of {'CIFAR-100' if name == 'noisy' else 'CIFAR-10'}, and the classes are "
        f"those of {dataset or 'another dataset'}.",
        do="Give human:noisy for CIFAR-100, and aggre, random1, random2, random3 or worse for CIFAR-10.",
    )


def _found(root: str, name: str, page: str) -> str:
    """The file of that name below the source, the nearest first, else beside it. Raises InputError."""
    if not is_url(root):
        for folder, folders, files in os.walk(root):
            if name in files:
                return os.path.join(folder, name)
            depth = Path(folder).relative_to(root).parts
            folders[:] = sorted(folders) if len(depth) < _DEPTH else []
        beside = os.path.join(os.path.dirname(root), name)
        if os.path.isfile(beside):
            return beside
    raise InputError(
        f"There is no file {name!r} below {root!r} or beside it.",
        do=f"Get it from {page}, and put it there or name it with --noise-file.",
    )


def _numbers(value: np.ndarray | None, file: str, field: str) -> np.ndarray:
    if value is None:
        raise InputError(
            f"The label set {file!r} holds no array {field!r}.",
            so="It is not as its authors ship it.",
            do=f"Get it from {HUMAN_PAGE}.",
        )
    return value


def _columns(file: str) -> tuple[np.ndarray, np.ndarray]:
    """(label_noisy, label) of a CSV."""
    columns = read_columns(file, "--noise", table=True)
    found = []
    for name in ("label_noisy", "label"):
        if name not in columns.names:
            raise InputError(
                f"The label set {file!r} has no column {name!r}; it has: {', '.join(columns.names)}.",
                do=f"Give a CSV with the columns label and label_noisy, as at {SEAL_PAGE}.",
            )
        value_N = columns.labels(name)
        if value_N.dtype == object:
            raise InputError(f"The column {name!r} of {file!r} holds no numbers.", do="Give numbers of classes.")
        found.append(value_N)
    return found[0], found[1]


def _require_same(clean: np.ndarray, clean_N: np.ndarray, file: str) -> None:
    """The label set's own clean labels must be the dataset's: else its rows are other images."""
    if len(clean) != len(clean_N):
        raise InputError(f"{file!r} has {len(clean):,} clean labels for {len(clean_N):,} rows.", do="Get it anew.")
    wrong = np.flatnonzero(clean != clean_N)
    if len(wrong):
        row = int(wrong[0])
        raise InputError(
            f"Row {row:,} of {file!r} says that the clean label is {clean[row]}; the dataset says {clean_N[row]} "
            f"({len(wrong):,} such rows).",
            so="The label set's rows are in another order, or belong to another dataset.",
            do="Give the dataset as its authors ship it, and the label set that belongs to it.",
        )
