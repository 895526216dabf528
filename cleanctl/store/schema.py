"""The names, types and chunks of everything in a store, and the checks of what is read back.

cleanctl.zarr/
  zarr.json            attribute "cleanctl": schema version, class names in label order, encoder, sources
  text/                embedding (P, D) float32, class (P,) int32, prompt (P,) string
  <split>/             one group a split; rows in store order, blocks of 65,536 rows
    embedding          (N, D) float16, NaN where there is none; shards of one block, CRC-32C on every chunk
    status             (N,) uint8: 0 pending, 1 ok, 2 failed
    reason             (N,) string, empty unless failed
    digest size mtime_ns    (N, 16) uint8, (N,) int64, (N,) int64: which file content a row stands for
    key label truth    (N,) string, int32, int32 (-1 where the truth is unknown)
    block_digest       (blocks, 32) uint8: BLAKE2b of a block's files, written last: the commit of the block
    scores/<name>/     arrays of length N by scorer, with the parameters that made them
    selections/<name>/ arrays of length N by strategy, likewise
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import Crc32cCodec

from cleanctl.records import SplitManifest
from cleanctl.store.files import DurableStore

SCHEMA_VERSION = 1
ATTRIBUTE = "cleanctl"
BLOCK_ROWS = 65_536
CHUNK_ROWS = 4_096
BLOCK_ARRAYS = ("embedding", "status", "reason", "digest", "size", "mtime_ns")
RESERVED = ("text",)


def num_blocks(num_rows: int) -> int:
    return -(-num_rows // BLOCK_ROWS)


def manifest_fingerprint(manifest: SplitManifest) -> str:
    """SHA-256 over the keys in order, as hex."""
    digest = hashlib.sha256()
    for key in manifest.keys:
        digest.update(key.encode())
        digest.update(b"\0")
    return digest.hexdigest()


def label_fingerprint(label_N: np.ndarray) -> str:
    """SHA-256 over the labels as little-endian int32, as hex."""
    return hashlib.sha256(np.ascontiguousarray(label_N, dtype="<i4").tobytes()).hexdigest()


def safe_name(name: str) -> str:
    """A name that a person gave, as a folder name: distinct names stay distinct."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "_", name).strip("._") or "_"
    return plain if plain == name else f"{plain[:60]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def column(group: zarr.Group, name: str) -> zarr.Array[Any]:
    """An array of a group, typed."""
    array = group[name]
    assert isinstance(array, zarr.Array)
    return array


def read(group: zarr.Group, name: str, rows: slice | int = slice(None)) -> np.ndarray:
    """Rows of an array as numpy."""
    return np.asarray(column(group, name)[rows])


def open_read_only(path: Path) -> zarr.Group:
    return zarr.open_group(store=DurableStore(path, read_only=True), mode="r")


def create_split_arrays(group: zarr.Group, num_rows: int, dim: int) -> None:
    """The arrays that are filled block by block; nothing is allocated until a block is written."""
    group.create_array(
        "embedding",
        shape=(num_rows, dim),
        dtype="float16",
        chunks=(CHUNK_ROWS, dim),
        shards=(BLOCK_ROWS, dim),
        fill_value=float("nan"),
        compressors=[Crc32cCodec()],
    )
    for name, dtype in (("status", "uint8"), ("reason", "string"), ("size", "int64"), ("mtime_ns", "int64")):
        group.create_array(name, shape=(num_rows,), chunks=(BLOCK_ROWS,), dtype=dtype)
    group.create_array("digest", shape=(num_rows, 16), chunks=(BLOCK_ROWS, 16), dtype="uint8")
    group.create_array("block_digest", shape=(num_blocks(num_rows), 32), chunks=(1, 32), dtype="uint8")


def write_column(group: zarr.Group, name: str, values: Any, dtype: str) -> None:
    """A whole per-row column; one of the same shape is overwritten chunk by chunk, never absent in between."""
    values = np.asarray(values, dtype=object if dtype == "string" else dtype)
    here = group.get(name)
    if not isinstance(here, zarr.Array) or here.shape != values.shape:
        chunks = (max(1, min(BLOCK_ROWS, len(values))), *values.shape[1:])
        here = group.create_array(name, shape=values.shape, chunks=chunks, dtype=dtype, overwrite=True)
    if len(values):
        here[...] = values


def block_files(group_path: Path, block: int) -> list[tuple[str, Path]]:
    """(array name, file) of everything that holds one block's rows; a file of fill values alone does not exist."""
    tails = {name: f"c/{block}/0" if name in ("embedding", "digest") else f"c/{block}" for name in BLOCK_ARRAYS}
    return [(name, group_path / name / tail) for name, tail in tails.items()]


def block_digest(group_path: Path, block: int) -> np.ndarray:
    """BLAKE2b-32 over the files of one block, (32,) uint8; a file that is absent counts as such."""
    digest = hashlib.blake2b(digest_size=32)
    for name, path in block_files(group_path, block):
        digest.update(f"{name}:{path.stat().st_size if path.exists() else 'absent'}\n".encode())
        if path.exists():
            with path.open("rb") as file:
                while chunk := file.read(1 << 22):
                    digest.update(chunk)
    return np.frombuffer(digest.digest(), dtype=np.uint8)
