"""Groups and arrays whose damage is noticed: opened, created, written and read here and nowhere else.

Every chunk ends with its CRC-32C, and every chunk is written, those of fill values too, so that an absent file is
damage. Arrays of older stores have neither and are believed, as far as Zarr can read them. Whatever cannot be read is
a DamageError that names the array and the command that repairs it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import zarr
from zarr.codecs import Crc32cCodec, ZstdCodec
from zarr.errors import BaseZarrError

from cleanctl.files.keys import Keys, KeysBuilder
from cleanctl.store.files import DamageError, DurableStore, fresh_path, swap_in

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
    struct.error,
    BaseZarrError,
)


@contextmanager
def _damage_at(store: DurableStore, name: str = "") -> Iterator[None]:
    try:
        yield
    except _UNREADABLE as exc:
        why = " ".join(str(exc).split()).replace(str(store.root), str(store.shown)) or type(exc).__name__
        raise DamageError.of(store.shown / name, why, store.do) from exc


def open_group(store: DurableStore) -> zarr.Group:
    """An existing group, to read it or (`read_only` false) to write to it."""
    with _damage_at(store, "zarr.json"):
        return zarr.open_group(store=store, mode="r" if store.read_only else "r+")


def column(group: zarr.Group, name: str) -> zarr.Array[Any]:
    """An array of a group; DamageError if there is none."""
    with _damage_at(_store(group), name):
        array = group[name]
        assert isinstance(array, zarr.Array), "it is not an array"
        return array.with_config({"write_empty_chunks": not array.shards})


def create_column(group: zarr.Group, name: str, shape: tuple[int, ...], dtype: str, chunks: tuple[int, ...]) -> None:
    """An empty array whose chunks are checked."""
    codecs = [ZstdCodec(), Crc32cCodec()]
    group.create_array(name, shape=shape, chunks=chunks, dtype=dtype, compressors=codecs, overwrite=True)


def write_column(group: zarr.Group, name: str, values: Any, dtype: str, *, chunk_rows: int) -> None:
    """A whole column of a group that nobody reads yet."""
    values = np.asarray(values, dtype=object if dtype == "string" else dtype)
    create_column(group, name, values.shape, dtype, (max(1, min(chunk_rows, len(values))), *values.shape[1:]))
    if len(values):
        column(group, name)[...] = values


def write_keys(group: zarr.Group, name: str, keys: Keys, *, chunk_rows: int) -> None:
    """A column of strings, chunk by chunk."""
    create_column(group, name, (len(keys),), "string", (max(1, min(chunk_rows, len(keys))),))
    array = column(group, name)
    for start, texts in keys.blocks(chunk_rows):
        array[start : start + len(texts)] = np.array(texts, dtype=object)


def read_keys(group: zarr.Group, name: str, rows: slice = slice(None), *, chunk_rows: int) -> Keys:
    """Rows of a column of strings, read chunk by chunk."""
    start, stop, _ = rows.indices(column(group, name).shape[0])
    builder = KeysBuilder()
    while start < stop:
        after = min(start // chunk_rows * chunk_rows + chunk_rows, stop)
        builder.extend(read(group, name, slice(start, after)).tolist())
        start = after
    return builder.keys()


def replace_keys(group: zarr.Group, name: str, keys: Keys, *, chunk_rows: int) -> None:
    """As `replace_column`, of strings chunk by chunk."""
    final = _store(group).root / name
    write_keys(group, fresh_path(final).name, keys, chunk_rows=chunk_rows)
    swap_in(final)


def replace_column(group: zarr.Group, name: str, values: Any, dtype: str, *, chunk_rows: int) -> None:
    """A whole column in place of an older one, whole or not at all."""
    final = _store(group).root / name
    write_column(group, fresh_path(final).name, values, dtype, chunk_rows=chunk_rows)
    swap_in(final)


def read(group: zarr.Group, name: str, rows: slice | int = slice(None), *, sparse: bool = False) -> np.ndarray:
    """Rows of an array. sparse: chunks that were never written read as the fill value."""
    array = column(group, name)
    if not sparse and isinstance(rows, slice):
        _require_chunks(group, name, array, rows)
    with _damage_at(_store(group), name):
        return np.asarray(array[rows])


def is_checked(array: zarr.Array[Any]) -> bool:
    """Whether all its chunks are written, each with a checksum (not so in stores of older versions)."""
    return any(isinstance(codec, Crc32cCodec) for codec in array.compressors) and not array.shards


def _require_chunks(group: zarr.Group, name: str, array: zarr.Array[Any], rows: slice) -> None:
    if not is_checked(array):
        return
    start, stop, _ = rows.indices(array.shape[0])
    folder, tail = _store(group).root / name / "c", ["0"] * (array.ndim - 1)
    for number in range(start // array.chunks[0], -(-stop // array.chunks[0])):
        if not folder.joinpath(str(number), *tail).is_file():
            missing = "/".join(["c", str(number), *tail])
            raise DamageError.of(_store(group).shown / name, f"its file {missing} is missing", _store(group).do)


def _store(group: zarr.Group) -> DurableStore:
    store = group.store
    assert isinstance(store, DurableStore)
    return store
