"""The label table of `--labels`: a CSV or Parquet file with a `path`, a label, and maybe a truth and a split column.

In: the file. Out: a `LabelTable` of plain columns, checked row by row where a check needs no classes; labels stay as
they were written (numbers or names) until the classes are known (`as_numbers`). Row numbers in messages count from 1
and leave out the header, so that row 1 is the first sample.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cleanctl.datasets.folders import split_name
from cleanctl.errors import InputError, UsageError
from cleanctl.files.locate import read_named_file
from cleanctl.paths import is_url

if TYPE_CHECKING:
    import pyarrow as pa

PATH_COLUMN = "path"
SPLIT_COLUMN = "split"


@dataclass(frozen=True, kw_only=True)
class LabelTable:
    """keys: N distinct relative POSIX paths in file order. label, truth: int64 or str arrays (N,). split: one a row."""

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
    """Raises InputError for an unreadable file, a missing value, a path twice or outside the source; UsageError for a
    column that is not there."""
    file = str(file)
    table = _load(file)
    label_column = _column_name(table, label_column, "--label-column", file)
    if truth_column is not None:
        truth_column = _column_name(table, truth_column, "--truth-column", file)
    keys = _keys(table, file, root)
    has_split = SPLIT_COLUMN in table.column_names
    return LabelTable(
        file=file,
        label_column=label_column,
        truth_column=truth_column,
        keys=keys,
        label=_values(table, label_column, file),
        truth=None if truth_column is None else _values(table, truth_column, file),
        split=[split_name(str(value)) for value in _values(table, SPLIT_COLUMN, file)] if has_split else None,
    )


def _load(file: str) -> pa.Table:
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet

    data = pa.BufferReader(read_named_file(file, "--labels")) if is_url(file) else file
    if not is_url(file) and not os.path.isfile(file):
        raise InputError(f"The label file {file!r} does not exist.", do="Check the path given to --labels.")
    suffix = os.path.splitext(file)[1].lower()
    try:
        if suffix in (".parquet", ".pq"):
            return pyarrow.parquet.read_table(data)
        # A path that looks like a number or a date must stay text.
        convert = pyarrow.csv.ConvertOptions(
            column_types={PATH_COLUMN: pa.string()},
            null_values=[""],  # a class may be called NA or null, not nothing
            strings_can_be_null=True,
        )
        delimiter = "\t" if suffix == ".tsv" else ","
        parse = pyarrow.csv.ParseOptions(delimiter=delimiter)
        return pyarrow.csv.read_csv(data, convert_options=convert, parse_options=parse)
    except (pa.ArrowException, OSError) as exc:
        raise InputError(
            f"The label file {file!r} cannot be read: {exc}.",
            do="Give a CSV file with a header line, or a Parquet file.",
        ) from exc


def _column_name(table: pa.Table, name: str, option: str, file: str) -> str:
    if name in table.column_names:
        return name
    raise UsageError(
        f"The label file {file!r} has no column {name!r}; it has: {', '.join(table.column_names)}.",
        do=f"Name the column with {option}.",
    )


def _keys(table: pa.Table, file: str, root: str) -> list[str]:
    if PATH_COLUMN not in table.column_names:
        raise InputError(
            f"The label file {file!r} has no column 'path'; it has: {', '.join(table.column_names)}.",
            so="Its rows cannot be joined to the images.",
            do=f"Add a column 'path' with each image's path relative to {root!r}.",
        )
    root_text = root if is_url(root) else Path(root).resolve().as_posix()
    root_text = f"{root_text.rstrip('/')}/"
    keys = [_key(str(path), root_text, row, file) for row, path in enumerate(_values(table, PATH_COLUMN, file))]
    if len(set(keys)) != len(keys):
        _refuse_duplicates(keys, file)
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
                f"The label file {file!r} names {key!r} twice, in rows {first[key] + 1} and {row + 1} "
                f"({len(keys) - len(set(keys))} rows are repetitions).",
                so="One image cannot have two rows.",
                do="Keep one row for each path.",
            )
        first[key] = row


def _values(table: pa.Table, name: str, file: str) -> np.ndarray:
    """A column as int64 or as str objects; floats that are whole numbers (pandas writes such) count as numbers."""
    import pyarrow as pa
    import pyarrow.compute as pc

    column = table.column(name)
    if column.null_count:
        row = int(np.argmax(pc.is_null(column).to_numpy(zero_copy_only=False)))
        raise InputError(
            f"The column {name!r} of {file!r} has {column.null_count} empty values, the first in row {row + 1}.",
            do="Fill them or leave those rows out.",
        )
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_integer(column.type):
        return column.cast(pa.int64()).to_numpy()
    if pa.types.is_floating(column.type):
        values = column.to_numpy()
        if not np.array_equal(values, np.round(values)):
            raise InputError(f"The column {name!r} of {file!r} holds fractions.", do="Name a column of labels.")
        return values.astype(np.int64)
    return np.array([str(value) for value in column.to_pylist()], dtype=object)


def as_numbers(values: np.ndarray, *, classes: Sequence[str], column: str, where: Callable[[int], str]) -> np.ndarray:
    """Labels as int32 (N,) in 0…C-1: names are looked up, numbers are checked.

    `where` says of a row what messages call it. InputError names the first that is no class.
    """
    if values.dtype != object:
        wrong = np.flatnonzero((values < 0) | (values >= len(classes)))
        if len(wrong):
            known = f"{len(classes)} classes, 0…{len(classes) - 1}"
            _refuse_class(values[wrong[0]], wrong, column, where, known)
        return values.astype(np.int32)
    number = {name: index for index, name in enumerate(classes)}
    out = np.fromiter((number.get(value, -1) for value in values), dtype=np.int32, count=len(values))
    wrong = np.flatnonzero(out < 0)
    if len(wrong):
        names = ", ".join(classes[:8]) + (", …" if len(classes) > 8 else "")
        _refuse_class(values[wrong[0]], wrong, column, where, f"{len(classes)} classes: {names}")
    return out


def _refuse_class(value: Any, wrong: np.ndarray, column: str, where: Callable[[int], str], known: str) -> None:
    shown = repr(value) if isinstance(value, str) else str(value)
    raise InputError(
        f"{where(int(wrong[0]))} has the unknown class {shown} in column {column!r} "
        f"({len(wrong)} rows have such); there are {known}.",
        so="Its label has no meaning.",
        do="Correct it, or name every class in the file given to --classes.",
    )
