"""Per-row columns of an import: labels, truth, keys and class names, from .npy, CSV, Parquet or text files.

Every reader gives arrays of length N in the order of the image embeddings, or raises an InputError that says which file
has what. Nothing is unpickled and nothing is written.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cleanctl.errors import InputError

TABLES = (".csv", ".parquet", ".pq")
_KEY_COLUMNS = ("key", "path")


@dataclass(frozen=True, kw_only=True)
class LabelColumn:
    """Values as written: int64 numbers or str names, (N,); and the table's own keys, if it has a column of them."""

    value_N: np.ndarray
    keys: list[str] | None = None

    @property
    def named(self) -> bool:
        return self.value_N.dtype.kind not in "iu"


def open_array(path: Path, what: str) -> np.ndarray:
    """A .npy file, memory-mapped."""
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as exc:
        raise InputError(f"{what}: there is no file {path}.", do="Check the path.") from exc
    except (OSError, ValueError, EOFError) as exc:
        raise InputError(
            f"{what}: {path} is not a plain .npy array: {exc}.",
            do="Write it with numpy.save (arrays of objects are not read).",
        ) from exc


def read_labels(path: Path, what: str) -> LabelColumn:
    """`--labels` or `--truth`: .npy of integers, a CSV or Parquet table with a column `label`, or a label a line."""
    if path.suffix.lower() == ".npy":
        return LabelColumn(value_N=_whole_numbers(open_array(path, what), path, what))
    if path.suffix.lower() in TABLES:
        return _from_table(path, what)
    lines = read_lines(path, what)
    if all(line.lstrip("-").isdigit() for line in lines):
        return LabelColumn(value_N=np.array([int(line) for line in lines], dtype=np.int64))
    return LabelColumn(value_N=np.array(lines, dtype=object))


def read_keys(path: Path) -> list[str]:
    """`--keys`: a key a line, or a .npy of strings."""
    if path.suffix.lower() != ".npy":
        return read_lines(path, "--keys")
    values = open_array(path, "--keys")
    if values.ndim != 1 or values.dtype.kind != "U":
        raise InputError(f"--keys: {path} holds {_shape(values)}, not a row of strings.", do="Save an array of str.")
    return [str(value) for value in values]


def read_classes(path: Path) -> tuple[str, ...]:
    """`--classes`: a name a line, in label order."""
    names = tuple(read_lines(path, "--classes"))
    twice = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    if twice or "" in names:
        raise InputError(
            f"--classes: {path} {f'names {twice[0]!r} twice' if twice else 'has an empty line'}.",
            do="Write each class once, a name a line.",
        )
    return names


def read_lines(path: Path, what: str) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8-sig").rstrip("\n").splitlines()
    except (OSError, UnicodeDecodeError) as exc:
        raise InputError(f"{what}: {path} cannot be read: {exc}.", do="Check the path.") from exc
    if not lines:
        raise InputError(f"{what}: {path} is empty.", do="Check the path.")
    return [line.strip() for line in lines]


def align(column: LabelColumn, keys: Sequence[str] | None, path: Path, what: str) -> np.ndarray:
    """The column's values in the order of `keys`, if both name their rows; else as they stand."""
    if column.keys is None or keys is None:
        return column.value_N
    where = {key: row for row, key in enumerate(column.keys)}
    missing = [key for key in keys if key not in where]
    if missing:
        raise InputError(
            f"{what}: {path} has no row for {len(missing):,} of {len(keys):,} keys, e.g. {missing[0]!r}; "
            f"its own are like {column.keys[0]!r}.",
            do="Give labels for every key.",
        )
    return column.value_N[[where[key] for key in keys]]


def to_numbers(value_N: np.ndarray, classes: Sequence[str], what: str, *, unknown: bool = False) -> np.ndarray:
    """Names or numbers → int32 (N,) in 0…C-1; with `unknown`, -1 and empty names (truth that nobody knows) stay -1."""
    if value_N.dtype.kind in "iu":
        low = -1 if unknown else 0
        bad = np.flatnonzero((value_N < low) | (value_N >= len(classes)))
        if len(bad):
            raise InputError(
                f"{what}: row {bad[0]} is {value_N[bad[0]]}; there are {len(classes)} classes, 0 to {len(classes) - 1} "
                f"({len(bad):,} such rows).",
                do="Check the labels, or give every class with --classes FILE.",
            )
        return value_N.astype(np.int32)
    where = {name: number for number, name in enumerate(classes)}
    if unknown:
        where[""] = -1
    numbers = np.array([where.get(str(name), -2) for name in value_N], dtype=np.int32)
    bad = np.flatnonzero(numbers == -2)
    if len(bad):
        raise InputError(
            f"{what}: row {bad[0]} is {value_N[bad[0]]!r}, which is no class ({len(bad):,} such rows).",
            do="Check the labels against --classes.",
        )
    return numbers


def _from_table(path: Path, what: str) -> LabelColumn:
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet

    column = what.removeprefix("--").removesuffix("s")  # --labels → label, --truth → truth
    try:
        table = pa.csv.read_csv(path) if path.suffix.lower() == ".csv" else pa.parquet.read_table(path)
    except (OSError, pa.ArrowException) as exc:
        raise InputError(f"{what}: {path} cannot be read: {exc}.", do="Check the path.") from exc
    name = next((name for name in (column, "label") if name in table.column_names), None)
    if name is None:
        raise InputError(
            f"{what}: {path} has no column {column!r}; it has: {', '.join(table.column_names)}.", do="Rename it."
        )
    if table[name].null_count:
        raise InputError(f"{what}: {path} has {table[name].null_count:,} empty labels.", do="Fill them in.")
    keys = next((table[key].to_pylist() for key in _KEY_COLUMNS if key in table.column_names), None)
    if pa.types.is_integer(table[name].type):
        value_N = table[name].to_numpy().astype(np.int64)
    else:
        value_N = np.array([str(value) for value in table[name].to_pylist()], dtype=object)
    return LabelColumn(value_N=value_N, keys=None if keys is None else [str(key) for key in keys])


def _whole_numbers(values: np.ndarray, path: Path, what: str) -> np.ndarray:
    if values.ndim != 1 or values.dtype.kind not in "iu":
        raise InputError(
            f"{what}: {path} holds {_shape(values)}, not a row of integers.", do="Save labels as (N,) int."
        )
    return np.asarray(values, dtype=np.int64)


def _shape(values: np.ndarray) -> str:
    return f"{values.dtype} {values.shape}"
