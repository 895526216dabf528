"""The names, types and chunks of everything in a store, and the checks of what is read back.

cleanctl.zarr/
  zarr.json            attribute "cleanctl": schema version, class names in label order, encoder, sources
  text/                embedding (P, D) float32, class (P,) int32, prompt (P,) string
  <split>/             one group a split; rows in store order, blocks of 65,536 rows
    embedding          (N, D) float16, NaN where there is none; shards of one block, CRC-32C on every chunk
    status             (N,) uint8: 0 pending, 1 ok, 2 failed
    reason             (N,) string, empty unless failed
    digest size mtime_ns    (N, 16) uint8, (N,) int64, (N,) int64: which file content a row stands for
    key label truth    (N,) string, int32, int32 (-1: unknown; -2: known to be another than the label)
    block_digest       (blocks, 32) uint8: BLAKE2b of a block's files, written last: the commit of the block
                       CRC-32C on every chunk, CRC-32 in every zarr.json
    scores/<name>/     arrays of length N by scorer, with the parameters that made them
    selections/<name>/ arrays of length N by strategy, likewise
  .decisions/<split>.jsonl   people's verdicts, a line each (decisions.py); stays when the store is recreated
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import zarr
from zarr.codecs import Crc32cCodec

from cleanctl.errors import StoreError
from cleanctl.files.keys import Keys
from cleanctl.store.arrays import create_column

SCHEMA_VERSION = 1
ATTRIBUTE = "cleanctl"
BLOCK_ROWS = 65_536
CHUNK_ROWS = 4_096
BLOCK_ARRAYS = ("embedding", "status", "reason", "digest", "size", "mtime_ns")
RESERVED = ("text",)
NAME_BYTES = 100  # of a split


def num_blocks(num_rows: int) -> int:
    return -(-num_rows // BLOCK_ROWS)


def keys_fingerprint(keys: Sequence[str]) -> str:
    """SHA-256 over the keys in order, as hex."""
    return Keys.of(keys).fingerprint()


def label_fingerprint(label_N: np.ndarray) -> str:
    """SHA-256 over the labels as little-endian int32, as hex."""
    return hashlib.sha256(np.ascontiguousarray(label_N, dtype="<i4").tobytes()).hexdigest()


def safe_name(name: str) -> str:
    """A name that a person gave, as a folder name: distinct names stay distinct."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "_", name).strip("._") or "_"
    if plain == name and len(name) <= 200:
        return name
    return f"{plain[:60]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def require_split_name(name: str) -> None:
    """StoreError unless a split of this name stays inside its store and the files beside it."""
    wrong = not name or name in (*RESERVED, "zarr.json") or name.startswith(".") or len(name.encode()) > NAME_BYTES
    if wrong or not name.isprintable() or "/" in name or "\\" in name:
        raise StoreError(
            f"A split cannot be named {name!r:.120}.",
            so="Its name is that of a folder in the store and of files beside it.",
            do=f"Choose another: at most {NAME_BYTES} bytes, printable, no slash, no dot first, not {RESERVED[0]!r}.",
        )


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
        create_column(group, name, (num_rows,), dtype, (BLOCK_ROWS,))
    create_column(group, "digest", (num_rows, 16), "uint8", (BLOCK_ROWS, 16))
    create_column(group, "block_digest", (num_blocks(num_rows), 32), "uint8", (1, 32))


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
