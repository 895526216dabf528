"""Columns of a file that a user gives: labels, truth, keys, paths, classes. One reader and one rule for every verb.

In: a .csv, .tsv or .parquet table, a .npy array, or a text with a value a line; a path or a URL. Out: keys as `Keys`,
labels as arrays in which each name is once in memory: no Python string is held for each row. Nothing is unpickled and
nothing is written. Rows in messages count from 1 and leave out a header.

**What is a number.** Keys and paths are text as written: `00010` stays `00010`. A column of labels holds the numbers of
classes if it is stored as numbers, or if every value is the plain text of a whole number, such as `7`, `-1`, or `7.0`
(which pandas writes). Else its values are the names of classes: one `00010` or `+1` makes all of them names.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cleanctl.errors import InputError, UsageError
from cleanctl.files.arrow import column_of, numpy_of
from cleanctl.files.keys import BLOCK_KEYS, Keys, KeysBuilder
from cleanctl.files.locate import open_named_file, read_named_file
from cleanctl.meant import meant
from cleanctl.paths import is_url

if TYPE_CHECKING:
    import pyarrow as pa

PARQUET = (".parquet", ".pq")
TABLES = (".csv", ".tsv", *PARQUET)
KEY_COLUMNS = ("key", "path")
UNKNOWN = -1  # a truth that nobody knows

_WHOLE = r"^-?(0|[1-9][0-9]{0,17})(\.0+)?$"


@dataclass(frozen=True, kw_only=True)
class Columns:
    """The columns of `file`, as they are stored; one without a name if it is an array or a text."""

    file: str
    table: pa.Table

    @property
    def names(self) -> list[str]:
        return self.table.column_names

    def where(self, row: int) -> str:
        return f"Row {row + 1} of {self.file!r}"

    def require(self, name: str, option: str) -> str:
        """`name`; UsageError if there is no such column."""
        if name in self.names:
            return name
        raise UsageError(
            f"The file {self.file!r} has no column {name!r}; it has: {', '.join(self.names)}{meant(name, self.names)}",
            do=f"Name the column with {option}.",
        )

    def keys(self, name: str = "", *, each: Callable[[int, str], str] | None = None) -> Keys:
        """Keys, paths or names as written, or what `each` makes of (row, text). Raises InputError for an empty value or
        a NUL byte."""
        column, builder, first = self._column(name), KeysBuilder(), 0
        self._refuse_empty(column, name)
        for start in range(0, len(column), BLOCK_KEYS):
            texts = list(map(str, column.slice(start, BLOCK_KEYS).to_pylist()))
            for row, text in enumerate(texts, start=first):
                if "\0" in text:
                    raise InputError(
                        f"{self.where(row)} holds a NUL byte: {text!r}.",
                        so="No file and no key has such a name.",
                        do="Write the file again without it.",
                    )
            builder.extend(texts if each is None else [each(row, text) for row, text in enumerate(texts, start=first)])
            first += len(texts)
        return builder.keys()

    def text(self, name: str = "") -> list[str]:
        """`keys` of a short table."""
        return self.keys(name).tolist()

    def words(self, name: str) -> np.ndarray:
        """Object (N,): what few different values there are, each once in memory. Raises InputError for an empty one."""
        column = self._column(name)
        self._refuse_empty(column, name)
        return _shared(column)

    def labels(self, name: str = "", *, unknown: bool = False) -> np.ndarray:
        """int64 numbers or str objects (N,), by the rule above. With `unknown`, empty values are -1, or "" beside
        names; else InputError names the first."""
        import pyarrow as pa
        import pyarrow.compute as pc

        column = self._column(name)
        if not unknown:
            self._refuse_empty(column, name)
        if pa.types.is_floating(column.type):
            if not pc.all(pc.equal(pc.round(column), column)).as_py():
                raise InputError(f"{self._named(name)} holds fractions.", do="Name a column of labels.")
            column = column.cast(pa.int64())
        elif not pa.types.is_integer(column.type):
            return numbers_or_names(column if pa.types.is_string(column.type) else _as_texts(column))
        return numpy_of(pc.fill_null(column.cast(pa.int64()), UNKNOWN))

    def _column(self, name: str) -> Any:
        import pyarrow as pa
        import pyarrow.compute as pc

        column = self.table.column(name)
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        if pa.types.is_floating(column.type):
            column = pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)
        return column

    def _refuse_empty(self, column: Any, name: str) -> None:
        if column.null_count:
            row = int(np.argmax(numpy_of(column.is_null())))
            raise InputError(
                f"{self._named(name)} has {column.null_count:,} empty values, the first in row {row + 1}.",
                do="Fill them or leave those rows out.",
            )

    def _named(self, name: str) -> str:
        return f"The column {name!r} of {self.file!r}" if name else f"The file {self.file!r}"


@dataclass(frozen=True, kw_only=True)
class LabelColumn:
    """value_N: int64 numbers or str names (N,). keys: the table's own, if it has a column of them. where: what
    messages call a row."""

    value_N: np.ndarray
    keys: Keys | None
    where: Callable[[int], str]

    def in_order_of(self, keys: Keys | None, file: Path) -> LabelColumn:
        """By key where both name their rows, else as it stands. Raises InputError for keys without a row, or with two
        rows."""
        if self.keys is None or keys is None or self.keys == keys:
            return self
        refuse_repeated(self.keys, str(file))
        row_N = self.keys.rows_of(keys)
        missing_N = np.flatnonzero(row_N < 0)
        if len(missing_N):
            raise InputError(
                f"{file} has no row for {len(missing_N):,} of {len(keys):,} keys, e.g. {keys[int(missing_N[0])]!r}; "
                f"its own are like {self.keys[0]!r}.",
                do="Give labels for every key.",
            )
        return LabelColumn(value_N=self.value_N[row_N], keys=keys, where=lambda row: self.where(int(row_N[row])))


def read_labels(file: Path, option: str, column: str, *, unknown: bool = False) -> LabelColumn:
    """A row's label each: the column `column` or `label` of a table, an array, or a text with a label a line."""
    columns = read_columns(file, option)
    name = next((name for name in (column, "label", "") if name in columns.names), None)
    if name is None:
        raise InputError(
            f"{option}: {file} has no column {column!r}; "
            f"it has: {', '.join(columns.names)}{meant(column, columns.names)}",
            do="Rename it.",
        )
    key_column = next((key for key in KEY_COLUMNS if key in columns.names), None)
    return LabelColumn(
        value_N=columns.labels(name, unknown=unknown),
        keys=None if key_column is None else columns.keys(key_column),
        where=columns.where,
    )


def refuse_repeated(keys: Keys, whose: str) -> None:
    """InputError that names a key which is there twice."""
    ordered, _ = keys.sorted()
    row = ordered.first_repeated()
    if row is not None:
        raise InputError(f"{whose} names the key {ordered[row]!r} twice.", do="Give each row a key of its own.")


def read_keys(file: Path) -> Keys:
    """A row's key each, as written: the column `key` or `path` of a table, an array, or a text with a key a line."""
    columns = read_columns(file, "--keys")
    name = next((name for name in (*KEY_COLUMNS, "") if name in columns.names), None)
    if name is None:
        raise InputError(
            f"--keys: {file} has no column 'key' or 'path'; it has: {', '.join(columns.names)}.", do="Rename it."
        )
    return columns.keys(name)


def read_columns(file: Path | str, option: str, *, table: bool = False) -> Columns:
    """By the file's suffix; one that is none of the above is a text, or with `table` a CSV. Raises InputError."""
    import pyarrow as pa

    file = str(file)
    suffix = Path(file).suffix.lower()
    try:
        if suffix == ".npy":
            columns = pa.table({"": _array(Path(file), option)})
        elif table or suffix in TABLES:
            columns = _read_table(file, suffix, option)
        else:
            columns = pa.table({"": _lines_of(file, option)})
    except FileNotFoundError as exc:
        raise InputError(f"The file {file!r} does not exist.", do=f"Check the path given to {option}.") from exc
    except (pa.ArrowException, OSError, ValueError) as exc:
        raise InputError(
            f"{option}: the file {file!r} cannot be read: {exc}.",
            do="Give a CSV or TSV file with a header, a Parquet file, a .npy array, or a text with a value a line.",
        ) from exc
    twice = [name for name in columns.column_names if columns.column_names.count(name) > 1]
    if twice:
        raise InputError(
            f"The file {file!r} has {len(twice)} columns named {twice[0]!r}.",
            so="It is not clear which of them is meant.",
            do="Rename all but one.",
        )
    return Columns(file=file, table=columns)


def _read_table(file: str, suffix: str, option: str) -> pa.Table:
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet

    data = read_named_file(file, option) if is_url(file) else None
    if suffix in PARQUET:
        return pa.parquet.ParquetFile(file if data is None else pa.BufferReader(data)).read()
    parse = pa.csv.ParseOptions(delimiter="\t" if suffix == ".tsv" else ",")

    def source() -> Any:
        return file if data is None else pa.BufferReader(data)

    with pa.csv.open_csv(source(), parse_options=parse) as header:
        names = header.schema.names
    convert = pa.csv.ConvertOptions(
        column_types={name: pa.string() for name in names},
        null_values=[""],  # a class may be called NA or null, not nothing
        strings_can_be_null=True,
    )
    return pa.csv.read_csv(source(), convert_options=convert, parse_options=parse)


def _array(path: Path, option: str) -> np.ndarray:
    values = open_array(path, option)
    if values.ndim != 1 or values.dtype.kind not in "iufU":
        raise InputError(
            f"{option}: {path} holds {values.dtype} {values.shape}.",
            do="Save a row of whole numbers or of strings, (N,).",
        )
    return np.asarray(values)


def open_array(path: Path, option: str) -> np.ndarray:
    """A .npy file, memory-mapped. Raises InputError."""
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as exc:
        raise InputError(f"{option}: there is no file {path}.", do="Check the path.") from exc
    except (OSError, ValueError, EOFError) as exc:
        raise InputError(
            f"{option}: {path} is not a plain .npy array: {exc}.",
            do="Write it with numpy.save (arrays of objects are not read).",
        ) from exc


def _lines_of(file: str, option: str) -> pa.ChunkedArray:
    """A text's lines as a column of strings, block by block; empty ones are null, those at its end are none."""
    import pyarrow as pa

    chunks, empty = [], 0
    for texts in _blocks_of_lines(file, option):
        filled = max((at for at, text in enumerate(texts, start=1) if text), default=0)
        if filled:
            chunks.append(pa.nulls(empty, pa.string()))
            chunks.append(column_of([text or None for text in texts[:filled]], pa.string()))
            empty = 0
        empty += len(texts) - filled
    return pa.chunked_array(chunks, pa.string())


def _blocks_of_lines(file: str, option: str) -> Iterator[list[str]]:
    """Stripped, some ten thousands at a time."""
    with open_named_file(file, option) as opened:
        lines = io.TextIOWrapper(opened, encoding="utf-8-sig")
        try:
            while block := [line.strip() for line in islice(lines, BLOCK_KEYS)]:
                yield block
        except UnicodeDecodeError as exc:
            raise InputError(f"{option}: the file {file!r} is no UTF-8 text: {exc}.", do="Check the path.") from exc


def read_lines(file: str, option: str) -> list[str]:
    """The lines of a text, stripped; empty ones at its end are none. Raises InputError."""
    lines = [line for block in _blocks_of_lines(file, option) for line in block]
    while lines and not lines[-1]:
        lines.pop()
    return lines


def read_classes(file: Path | str) -> tuple[str, ...]:
    """Class names of a text file, one a line, in label order. Raises InputError."""
    names = tuple(read_lines(str(file), "--classes"))
    if not names or "" in names:
        where = f"line {names.index('') + 1} is empty" if names else "it is empty"
        raise InputError(f"The class file {str(file)!r} is no list of names: {where}.", do="Write one name a line.")
    seen: set[str] = set()
    repeated = next((name for name in names if name in seen or seen.add(name)), None)  # type: ignore[func-returns-value]
    if repeated is not None:
        raise InputError(f"The class file {str(file)!r} names {repeated!r} twice.", do="Give each class its own name.")
    return names


def numbers_or_names(texts: Sequence[str | None] | pa.ChunkedArray) -> np.ndarray:
    """Labels that are written as text, by the rule above: int64, where None is -1; or str objects, where it is ""."""
    import pyarrow as pa
    import pyarrow.compute as pc

    column = texts if isinstance(texts, pa.ChunkedArray) else pa.chunked_array([pa.array(texts, pa.string())])
    if not pc.all(pc.match_substring_regex(column, _WHOLE)).as_py():
        return _shared(column)
    numbers = pc.replace_substring_regex(column, r"\.0+$", "").cast(pa.int64())
    return numpy_of(pc.fill_null(numbers, UNKNOWN))


def _as_texts(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Strings as Python writes the values."""
    import pyarrow as pa

    chunks = [[None if one is None else str(one) for one in chunk.to_pylist()] for chunk in column.chunks]
    return pa.chunked_array([pa.array(chunk, pa.string()) for chunk in chunks], pa.string())


def _shared(column: pa.ChunkedArray) -> np.ndarray:
    """Object (N,) of str, "" for null; values that are alike are one object."""
    known: dict[str, str] = {}
    parts = [np.zeros(0, object)]
    for start in range(0, len(column), BLOCK_KEYS):
        texts = ["" if value is None else str(value) for value in column.slice(start, BLOCK_KEYS).to_pylist()]
        parts.append(np.array([known.setdefault(text, text) for text in texts], dtype=object))
    return np.concatenate(parts)


def as_numbers(
    values: np.ndarray,
    *,
    classes: Sequence[str],
    column: str,
    where: Callable[[int], str],
    unknown: bool = False,
) -> np.ndarray:
    """Labels as int32 (N,) in 0…C-1: names are looked up, numbers are checked; with `unknown` also -1 and "".

    `where` says of a row what messages call it. InputError names the first that is no class.
    """
    number = {name: index for index, name in enumerate(classes)}
    if values.dtype != object:
        low = UNKNOWN if unknown else 0
        out = np.where((values < low) | (values >= len(classes)), -2, values).astype(np.int32)
        known = f"{len(classes)} classes, 0…{len(classes) - 1}"
    else:
        number |= {"": UNKNOWN} if unknown else {}
        out = np.fromiter((number.get(value, -2) for value in values), dtype=np.int32, count=len(values))
        known = f"{len(classes)} classes: {', '.join(classes[:8])}{', …' if len(classes) > 8 else ''}"
    wrong = np.flatnonzero(out == -2)
    if len(wrong):
        value = values[wrong[0]]
        raise InputError(
            f"{where(int(wrong[0]))} has the unknown class {repr(value) if isinstance(value, str) else value}"
            f"{f' in column {column!r}' if column else ''} ({len(wrong):,} such rows); there are {known}.",
            so="Its label has no meaning.",
            do="Correct it, or name every class in the file given to --classes.",
        )
    return out
