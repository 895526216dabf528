"""The label table of `--labels`: a `path` column, labels, and maybe a truth and a split, read by `columns.py`.

In: the file. Out: a `LabelTable` of plain columns, checked row by row where a check needs no classes; labels stay
numbers or names until the classes are known (`columns.as_numbers`).
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from cleanctl.config import require_plain_name
from cleanctl.datasets.columns import Columns, read_columns
from cleanctl.datasets.folders import split_name
from cleanctl.errors import InputError, UsageError
from cleanctl.files.keys import Keys
from cleanctl.paths import is_url

PATH_COLUMN = "path"
SPLIT_COLUMN = "split"


@dataclass(frozen=True, kw_only=True)
class LabelTable:
    """keys: N distinct relative POSIX paths in file order; order_N: the rows in the order of sorted keys. label, truth:
    int64 or str arrays (N,), an unknown truth -1 or "". split: str objects (N,). A name is in memory once."""

    file: str
    label_column: str
    truth_column: str | None
    keys: Keys
    order_N: np.ndarray
    label: np.ndarray
    truth: np.ndarray | None
    split: np.ndarray | None

    def __len__(self) -> int:
        return len(self.keys)

    def where(self, row: int) -> str:
        return f"Row {row + 1} of {self.file!r}"


def read_table(file: Path | str, *, root: str, label_column: str, truth_column: str | None) -> LabelTable:
    """Raises InputError for an unreadable file, a missing value, a path twice or outside the source, a split that is
    no plain name; UsageError for a column that is not there."""
    columns = read_columns(file, "--labels", table=True)
    columns.require(label_column, "--label-column")
    if truth_column is not None:
        columns.require(truth_column, "--truth-column")
    keys, order_N = _keys(columns, root)
    return LabelTable(
        file=columns.file,
        label_column=label_column,
        truth_column=truth_column,
        keys=keys,
        order_N=order_N,
        label=columns.labels(label_column),
        truth=None if truth_column is None else columns.labels(truth_column, unknown=True),
        split=_splits(columns),
    )


def _splits(columns: Columns) -> np.ndarray | None:
    if SPLIT_COLUMN not in columns.names:
        return None
    found_N = columns.words(SPLIT_COLUMN)
    meant = {}
    for name in dict.fromkeys(found_N.tolist()):
        try:
            require_plain_name(columns.where(int(np.argmax(found_N == name))) + ": the split", name)
        except UsageError as exc:
            raise InputError(exc.found, do=exc.do) from exc
        meant[name] = split_name(name)
    return np.array([meant[name] for name in found_N], dtype=object)


def _keys(columns: Columns, root: str) -> tuple[Keys, np.ndarray]:
    if PATH_COLUMN not in columns.names:
        raise InputError(
            f"The file {columns.file!r} has no column 'path'; it has: {', '.join(columns.names)}.",
            so="Its rows cannot be joined to the images.",
            do=f"Add a column 'path' with each image's path relative to {root!r}.",
        )
    root_text = root if is_url(root) else Path(root).resolve().as_posix()
    root_text = f"{root_text.rstrip('/')}/"
    keys = columns.keys(PATH_COLUMN, each=lambda row, path: _key(path, root_text, row, columns.file))
    ordered, order_N = keys.sorted()
    if ordered.first_repeated() is not None:
        _refuse_duplicates(keys, ordered, order_N, columns.file)
    return keys, order_N


def _key(path: str, root_text: str, row: int, file: str) -> str:
    key = path.replace("\\", "/").removeprefix(root_text)
    if "./" in key or "//" in key:
        key = "/".join(part for part in key.split("/") if part not in ("", "."))
    if key.startswith("/") or (path.startswith("/") and key == path) or ".." in key.split("/"):
        raise InputError(
            f"Row {row + 1} of {file!r} names {path!r}, which lies outside the source.",
            so="A row's identity is its path relative to the source.",
            do="Write paths relative to the source folder, or give the folder that holds them all.",
        )
    return key


def _refuse_duplicates(keys: Keys, ordered: Keys, order_N: np.ndarray, file: str) -> None:
    """Names the first row that repeats another one."""
    again_R = np.array([row for row, (key, after) in enumerate(pairwise(ordered), start=1) if key == after])
    row = int(order_N[again_R].min())
    first = int(order_N[bisect_left(ordered, keys[row])])
    raise InputError(
        f"The file {file!r} names {keys[row]!r} twice, in rows {first + 1} and {row + 1} "
        f"({len(again_R)} rows are repetitions).",
        so="One image cannot have two rows.",
        do="Keep one row for each path.",
    )
