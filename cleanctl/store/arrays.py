"""Groups and arrays whose damage is noticed: opened, created, written and read here and nowhere else.

Every chunk ends with its CRC-32C, and every chunk is written, those of fill values too, so that an absent file is
damage. Arrays of older stores have neither and are believed, as far as they can be read. Whatever cannot be read is
a DamageError that names the array and the command that repairs it.

What is on disk is Zarr v3, which any Zarr library reads; `cleanctl.store.codecs` says why none is used here. Chunks
are rows: an array is cut along its first axis alone.
"""

from __future__ import annotations

import shutil
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cleanctl.files.keys import Keys, KeysBuilder
from cleanctl.store.codecs import (
    BYTES,
    CRC32C,
    TEXTS,
    ZSTD,
    Codec,
    decode,
    encode,
    encode_shard,
    is_sharded,
    read_shard,
    sharded,
)
from cleanctl.store.files import DamageError, DurableStore, fresh_path, swap_in

META = "zarr.json"
_UNREADABLE = (
    ValueError,
    RuntimeError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
    ArithmeticError,
    EOFError,
    MemoryError,
    FileNotFoundError,
    IsADirectoryError,
    NotADirectoryError,
    struct.error,
)


@dataclass
class Group:
    """A folder of arrays. attributes: as they were when it was opened, and as they were set since."""

    store: DurableStore
    attributes: dict[str, Any]

    def set(self, **values: Any) -> None:
        """Attributes (JSON values), in one atomic write."""
        self.attributes |= values
        self.store.write_meta(META, _group_meta(self.attributes))


@dataclass(frozen=True)
class Column:
    """What `zarr.json` says of an array. chunk: the shape of what one file holds. dtype: object for texts."""

    shape: tuple[int, ...]
    chunk: tuple[int, ...]
    dtype: np.dtype[Any]
    fill: Any
    codecs: tuple[Codec, ...]

    @classmethod
    def of(cls, meta: dict[str, Any]) -> Column:
        if meta["node_type"] != "array":
            raise ValueError("it is not an array")
        dtype = np.dtype(object if meta["data_type"] == "string" else meta["data_type"])
        column = cls(
            shape=tuple(meta["shape"]),
            chunk=tuple(meta["chunk_grid"]["configuration"]["chunk_shape"]),
            dtype=dtype,
            fill=meta["fill_value"] if dtype.kind == "O" else dtype.type(meta["fill_value"]),
            codecs=tuple(meta["codecs"]),
        )
        if len(column.chunk) != len(column.shape) or column.chunk[1:] != column.shape[1:]:
            raise ValueError("it is cut along another axis than the first")
        return column

    @property
    def is_checked(self) -> bool:
        """Whether all its chunks are written, each with a checksum (not so in stores of older versions)."""
        return any(codec["name"] == "crc32c" for codec in self.codecs)

    def file(self, folder: Path, number: int) -> Path:
        """Where chunk `number` lies."""
        return folder.joinpath(self.key(number))

    def key(self, number: int) -> str:
        return "/".join(["c", str(number), *["0"] * (len(self.shape) - 1)])


@contextmanager
def _damage_at(store: DurableStore, name: str = "") -> Iterator[None]:
    try:
        yield
    except _UNREADABLE as exc:
        why = " ".join(str(exc).split()).replace(str(store.root), str(store.shown)) or type(exc).__name__
        raise DamageError.of(store.shown / name, why, store.do) from exc


# ---- groups


def open_group(store: DurableStore) -> Group:
    """An existing group, to read it or (`read_only` false) to write to it."""
    with _damage_at(store, META):
        meta = store.read_meta(META)
        if meta["node_type"] != "group":
            raise ValueError("it is not a group")
        return Group(store, dict(meta["attributes"]))


def create_group(store: DurableStore, attributes: Mapping[str, Any] | None = None) -> Group:
    """A new group; the attributes of one that is there already are replaced."""
    group = Group(store, dict(attributes or {}))
    group.set()
    return group


def _group_meta(attributes: dict[str, Any]) -> dict[str, Any]:
    return {"zarr_format": 3, "node_type": "group", "attributes": attributes}


# ---- arrays


def column(group: Group, name: str) -> Column:
    """An array of a group; DamageError if there is none."""
    with _damage_at(group.store, name):
        return Column.of(group.store.read_meta(f"{name}/{META}"))


def create_column(group: Group, name: str, shape: tuple[int, ...], dtype: str, chunk_rows: int) -> Column:
    """An empty array whose chunks are checked, in place of what has its name."""
    codecs = [TEXTS if dtype == "string" else BYTES, ZSTD, CRC32C]
    fill = "" if dtype == "string" else np.zeros(1, dtype).tolist()[0]
    return _create(group, name, shape, dtype, chunk_rows, codecs, fill)


def create_sharded(group: Group, name: str, shape: tuple[int, int], dtype: str, rows: int, shard_rows: int) -> Column:
    """An empty array of floats in shards of `shard_rows` rows, of which each `rows` have a checksum; NaN is what has
    not been written."""
    return _create(group, name, shape, dtype, shard_rows, sharded((rows, *shape[1:])), "NaN")


def _create(
    group: Group, name: str, shape: tuple[int, ...], dtype: str, chunk_rows: int, codecs: list[Codec], fill: Any
) -> Column:
    meta = {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(shape),
        "data_type": dtype,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [chunk_rows, *shape[1:]]}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": fill,
        "codecs": codecs,
        "attributes": {},
        "storage_transformers": [],
    }
    if (group.store.root / name).exists():
        shutil.rmtree(group.store.root / name)
    group.store.write_meta(f"{name}/{META}", meta)
    return Column.of(meta)


def write_chunk(group: Group, name: str, number: int, values: np.ndarray) -> None:
    """The rows of chunk `number`, all that the array has of it. Values of another type are converted."""
    _write(group, name, column(group, name), number, np.asarray(values))


def _write(group: Group, name: str, found: Column, number: int, values: np.ndarray) -> None:
    key = f"{name}/{found.key(number)}"
    rows = np.asarray(values, found.dtype)
    if is_sharded(found.codecs):
        data = encode_shard(rows, found.codecs[0], found.chunk[0])
        if data is not None:
            group.store.write(key, data)
        return
    if len(rows) < found.chunk[0]:
        rows = np.concatenate([rows, np.full((found.chunk[0] - len(rows), *found.chunk[1:]), found.fill, found.dtype)])
    group.store.write(key, encode(rows, found.codecs))


def write_column(group: Group, name: str, values: Any, dtype: str, *, chunk_rows: int) -> None:
    """A whole column of a group that nobody reads yet."""
    values = np.asarray(values, dtype=object if dtype == "string" else dtype)
    rows = max(1, min(chunk_rows, len(values)))
    found = create_column(group, name, values.shape, dtype, rows)
    for number, start in enumerate(range(0, len(values), rows)):
        _write(group, name, found, number, values[start : start + rows])


def replace_column(group: Group, name: str, values: Any, dtype: str, *, chunk_rows: int) -> None:
    """A whole column in place of an older one, whole or not at all."""
    final = group.store.root / name
    write_column(group, fresh_path(final).name, values, dtype, chunk_rows=chunk_rows)
    swap_in(final)


def write_keys(group: Group, name: str, keys: Keys, *, chunk_rows: int) -> None:
    """A column of strings, chunk by chunk."""
    rows = max(1, min(chunk_rows, len(keys)))
    found = create_column(group, name, (len(keys),), "string", rows)
    for start, texts in keys.blocks(rows):
        _write(group, name, found, start // rows, np.array(texts, dtype=object))


def replace_keys(group: Group, name: str, keys: Keys, *, chunk_rows: int) -> None:
    """As `replace_column`, of strings chunk by chunk."""
    final = group.store.root / name
    write_keys(group, fresh_path(final).name, keys, chunk_rows=chunk_rows)
    swap_in(final)


def read_keys(group: Group, name: str, rows: slice = slice(None), *, chunk_rows: int) -> Keys:
    """Rows of a column of strings, read chunk by chunk."""
    start, stop, _ = rows.indices(column(group, name).shape[0])
    builder = KeysBuilder()
    while start < stop:
        after = min(start // chunk_rows * chunk_rows + chunk_rows, stop)
        builder.extend(read(group, name, slice(start, after)).tolist())
        start = after
    return builder.keys()


def read(group: Group, name: str, rows: slice | int = slice(None), *, sparse: bool = False) -> np.ndarray:
    """Rows of an array; texts are objects. sparse: chunks that were never written read as the fill value."""
    found = column(group, name)
    if not isinstance(rows, slice):
        return np.asarray(_read(group, name, found, slice(rows, rows + 1), sparse=True)[0])
    return _read(group, name, found, rows, sparse=sparse)


def _read(group: Group, name: str, found: Column, rows: slice, *, sparse: bool) -> np.ndarray:
    with _damage_at(group.store, name):
        start, stop, _ = rows.indices(found.shape[0])
        values = np.full((max(stop - start, 0), *found.shape[1:]), found.fill, found.dtype)
        for number in range(start // found.chunk[0], -(-stop // found.chunk[0])):
            first = number * found.chunk[0]
            file = found.file(group.store.root / name, number)
            if not file.is_file():
                if found.is_checked and not sparse:
                    raise ValueError(f"its file {found.key(number)} is missing")
                continue
            wanted = slice(max(start - first, 0), min(stop - first, found.chunk[0]))
            for part, chunk in _chunks(file, found, wanted):
                low, high = max(part.start, wanted.start), min(part.stop, wanted.stop)
                values[first + low - start : first + high - start] = chunk[low - part.start : high - part.start]
        return values


def _chunks(file: Path, found: Column, wanted: slice) -> Iterator[tuple[slice, np.ndarray]]:
    """What a file holds of the rows `wanted`, with their places in it."""
    if is_sharded(found.codecs):
        yield from read_shard(file, found.codecs[0], found.chunk, wanted, found.dtype)
        return
    values = decode(file.read_bytes(), found.codecs, found.dtype, int(np.prod(found.chunk)))
    yield slice(0, found.chunk[0]), values.reshape(found.chunk)
