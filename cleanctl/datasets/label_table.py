"""The label table of `--labels`: a `path` column, labels, and maybe a truth and a split, read by `columns.py`.

In: the file. Out: a `LabelTable` of plain columns, checked row by row where a check needs no classes; labels stay
numbers or names until the classes are known (`columns.as_numbers`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cleanctl.config import require_plain_name
from cleanctl.datasets.columns import Columns, read_columns
from cleanctl.datasets.folders import split_name
from cleanctl.errors import InputError, UsageError
from cleanctl.paths import is_url

PATH_COLUMN = "path"
SPLIT_COLUMN = "split"


@dataclass(frozen=True, kw_only=True)
class LabelTable:
    """keys: N distinct relative POSIX paths in file order. label, truth: int64 or str arrays (N,), an unknown truth -1
    or "". split: one a row."""

    file: str
    label_column: str
    truth_column: str | None
    keys: list[str]
    label: np.ndarray
    truth: np.ndarray | None
    split: list[str] | None

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
    return LabelTable(
        file=columns.file,
        label_column=label_column,
        truth_column=truth_column,
        keys=_keys(columns, root),
        label=columns.labels(label_column),
        truth=None if truth_column is None else columns.labels(truth_column, unknown=True),
        split=_splits(columns),
    )


def _splits(columns: Columns) -> list[str] | None:
    if SPLIT_COLUMN not in columns.names:
        return None
    splits = columns.text(SPLIT_COLUMN)
    for name in set(splits):
        try:
            require_plain_name(columns.where(splits.index(name)) + ": the split", name)
        except UsageError as exc:
            raise InputError(exc.found, do=exc.do) from exc
    return [split_name(name) for name in splits]


def _keys(columns: Columns, root: str) -> list[str]:
    if PATH_COLUMN not in columns.names:
        raise InputError(
            f"The file {columns.file!r} has no column 'path'; it has: {', '.join(columns.names)}.",
            so="Its rows cannot be joined to the images.",
            do=f"Add a column 'path' with each image's path relative to {root!r}.",
        )
    root_text = root if is_url(root) else Path(root).resolve().as_posix()
    root_text = f"{root_text.rstrip('/')}/"
    keys = [_key(path, root_text, row, columns.file) for row, path in enumerate(columns.text(PATH_COLUMN))]
    if len(set(keys)) != len(keys):
        _refuse_duplicates(keys, columns.file)
    return keys


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


def _refuse_duplicates(keys: list[str], file: str) -> None:
    first: dict[str, int] = {}
    for row, key in enumerate(keys):
        if key in first:
            raise InputError(
                f"The file {file!r} names {key!r} twice, in rows {first[key] + 1} and {row + 1} "
                f"({len(keys) - len(set(keys))} rows are repetitions).",
                so="One image cannot have two rows.",
                do="Keep one row for each path.",
            )
        first[key] = row
