"""Chunks of Zarr v3 arrays as bytes: the few codecs that a store uses, encoded and decoded here.

`zarr` itself, which reads what is written here and the other way round, takes half a second and 20 MiB to import, and
some milliseconds an array. A codec is a JSON object of an array's `zarr.json`; a chain of them is applied in order to
encode. Damage is a ValueError. Leaves nothing on disk.

    bytes             numbers, little-endian
    vlen-utf8         texts: their number, then the length and the UTF-8 of each
    zstd crc32c       of what comes before them; the checksum is four bytes at the end
    sharding_indexed  inner chunks of some rows each, then their places, 2^64-1 where one holds fill values alone
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

Codec = dict[str, Any]
Data = bytes | bytearray | memoryview

LEVEL = 3  # of zstd: what it uses by itself
BYTES: Codec = {"name": "bytes", "configuration": {"endian": "little"}}
TEXTS: Codec = {"name": "vlen-utf8", "configuration": {}}
ZSTD: Codec = {"name": "zstd", "configuration": {"level": LEVEL, "checksum": False}}
CRC32C: Codec = {"name": "crc32c"}
ABSENT = 2**64 - 1


def sharded(chunk: Sequence[int]) -> list[Codec]:
    """The codecs of an array of numbers in shards, each chunk of which has its checksum."""
    inner = {"chunk_shape": list(chunk), "codecs": [BYTES, CRC32C]}
    index = {"index_codecs": [BYTES, CRC32C], "index_location": "end"}
    return [{"name": "sharding_indexed", "configuration": inner | index}]


def is_sharded(codecs: Sequence[Codec]) -> bool:
    return codecs[0]["name"] == "sharding_indexed"


# ---- one chunk


def encode(values: np.ndarray, codecs: Sequence[Codec]) -> bytes:
    """values: numbers, or texts as objects; one whole chunk."""
    import google_crc32c
    import pyarrow as pa

    data = b""
    for codec in codecs:
        name = codec["name"]
        if name == "bytes":
            data = np.ascontiguousarray(values, values.dtype.newbyteorder("<")).tobytes()
        elif name == "vlen-utf8":
            data = _joined([str(text).encode() for text in values.tolist()])
        elif name == "zstd":
            data = pa.Codec("zstd", compression_level=LEVEL).compress(data, asbytes=True)
        elif name == "crc32c":
            data += struct.pack("<I", google_crc32c.value(data))
        else:
            raise ValueError(f"nothing is written here by the codec {name!r}")
    return data


def decode(data: Data, codecs: Sequence[Codec], dtype: np.dtype[Any], count: int) -> np.ndarray:
    """(count,) numbers, or texts as objects. Numbers may be read-only, they lie in what was decoded."""
    before = [codec["name"] for codec in codecs]
    while before:
        name = before.pop()
        if name == "crc32c":
            data = _checked(data)
        elif name == "zstd":
            data = _decompressed(data, count * dtype.itemsize if before[-1:] == ["bytes"] else None)
        elif name == "bytes" and not before:
            return _numbers(data, codecs[0], dtype, count)
        elif name == "vlen-utf8" and not before:
            return _texts(data, count)
        else:
            raise ValueError(f"its codec {name!r} is not one of a store")
    raise ValueError("its codecs give no values")


def _checked(data: Data) -> memoryview:
    import google_crc32c

    content, sealed = memoryview(data)[:-4], bytes(memoryview(data)[-4:])
    if len(sealed) < 4 or struct.unpack("<I", sealed)[0] != google_crc32c.value(bytes(content)):
        raise ValueError("a chunk does not have its checksum")
    return content


def _decompressed(data: Data, size: int | None) -> Data:
    import pyarrow as pa

    buffer = pa.py_buffer(data)
    try:
        if size is not None:
            return memoryview(pa.decompress(buffer, decompressed_size=size, codec="zstd"))
        return memoryview(pa.CompressedInputStream(pa.BufferReader(buffer), "zstd").read())
    except OSError as exc:
        raise ValueError(str(exc)) from exc


def _numbers(data: Data, codec: Codec, dtype: np.dtype[Any], count: int) -> np.ndarray:
    big = codec.get("configuration", {}).get("endian") == "big"
    values = np.frombuffer(data, dtype.newbyteorder(">" if big else "<"))
    if len(values) != count:
        raise ValueError(f"a chunk holds {len(values)} values instead of {count}")
    return values


def _joined(texts: list[bytes]) -> bytes:
    parts = [struct.pack("<I", len(texts))]
    for text in texts:
        parts += [len(text).to_bytes(4, "little"), text]
    return b"".join(parts)


def _texts(data: Data, count: int) -> np.ndarray:
    data, number_at, at = bytes(data), struct.Struct("<I").unpack_from, 4
    if len(data) < 4 or number_at(data, 0)[0] != count:
        raise ValueError(f"a chunk does not hold {count} texts")
    texts = []
    try:
        for _ in range(count):
            start = at + 4
            at = start + number_at(data, at)[0]
            texts.append(data[start:at].decode())
    except struct.error as exc:
        raise ValueError("a chunk of texts ends too early") from exc
    if at != len(data):
        raise ValueError("a chunk of texts ends too early or too late")
    values = np.empty(count, object)
    values[:] = texts
    return values


# ---- shards: the rows of a chunk and those behind it, as far as a file goes


def encode_shard(values: np.ndarray, codec: Codec, shard_rows: int) -> bytes | None:
    """values: (B, …) floats, fill value NaN, B ≤ shard_rows. None where all are NaN: such a shard has no file."""
    about = codec["configuration"]
    rows = about["chunk_shape"][0]
    index_K2 = np.full((-(-shard_rows // rows), 2), ABSENT, np.uint64)
    parts, size = [], 0
    for number, start in enumerate(range(0, len(values), rows)):
        chunk = values[start : start + rows]
        if np.isnan(chunk[:, 0]).all() and np.isnan(chunk).all():
            continue
        if len(chunk) < rows:
            chunk = np.concatenate([chunk, np.full((rows - len(chunk), *chunk.shape[1:]), np.nan, chunk.dtype)])
        parts.append(encode(chunk, about["codecs"]))
        index_K2[number] = size, len(parts[-1])
        size += len(parts[-1])
    return b"".join([*parts, encode(index_K2, about["index_codecs"])]) if parts else None


def read_shard(
    path: Path, codec: Codec, shard: tuple[int, ...], rows: slice, dtype: np.dtype[Any]
) -> Iterator[tuple[slice, np.ndarray]]:
    """The chunks of a shard that hold any of `rows`, each with its rows, counted from the shard's first. A chunk of
    fill values alone is left out. shard: its shape."""
    about = codec["configuration"]
    inner = tuple(about["chunk_shape"])
    count = -(-shard[0] // inner[0])
    if inner[1:] != shard[1:] or about.get("index_location", "end") != "end":
        raise ValueError("its shards are not laid out as those of a store")
    checked = any(one["name"] == "crc32c" for one in about["index_codecs"])
    size = 16 * count + 4 * checked
    with path.open("rb") as file:
        handle = file.fileno()
        data = os.pread(handle, size, max(os.fstat(handle).st_size - size, 0))
        index_K2 = decode(data, about["index_codecs"], np.dtype(np.uint64), 2 * count).reshape(count, 2)
        for number in range(rows.start // inner[0], -(-rows.stop // inner[0])):
            start, length = map(int, index_K2[number])
            if (start, length) != (ABSENT, ABSENT):
                values = decode(os.pread(handle, length, start), about["codecs"], dtype, int(np.prod(inner)))
                yield slice(number * inner[0], (number + 1) * inner[0]), values.reshape(inner)
