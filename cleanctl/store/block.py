"""One block of a split, 65,536 rows: in memory while it is filled, as Zarr shards once it is whole.

A block on disk is committed by its digest, written last over the files of all its arrays; whatever is cut short or
altered no longer has that digest.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import zarr

from cleanctl.records import Status
from cleanctl.store import schema
from cleanctl.store.arrays import column, open_group, read
from cleanctl.store.files import DamageError, DurableStore


@dataclass
class Block:
    """The rows of one block; every array has the block's length."""

    embedding: np.ndarray
    status: np.ndarray
    reason: np.ndarray
    digest: np.ndarray
    size: np.ndarray
    mtime_ns: np.ndarray

    @classmethod
    def empty(cls, rows: int, dim: int) -> Block:
        return cls(
            embedding=np.full((rows, dim), np.nan, dtype=np.float16),
            status=np.zeros(rows, dtype=np.uint8),
            reason=np.full(rows, "", dtype=object),
            digest=np.zeros((rows, 16), dtype=np.uint8),
            size=np.zeros(rows, dtype=np.int64),
            mtime_ns=np.zeros(rows, dtype=np.int64),
        )

    @property
    def full(self) -> bool:
        return bool((self.status != Status.PENDING).all())

    def forget(self, stale: np.ndarray) -> None:
        """Sets rows back to pending; stale: bool, the block's length."""
        at = np.flatnonzero(stale)
        self.take(at, Block.empty(1, self.embedding.shape[1]), np.zeros(len(at), dtype=np.int64))

    def take(self, at: np.ndarray, other: Block, other_at: np.ndarray | slice) -> None:
        for name in schema.BLOCK_ARRAYS:
            getattr(self, name)[at] = getattr(other, name)[other_at]


def rows_of(number: int, num_rows: int) -> slice:
    """The rows of a split that its block `number` holds."""
    return slice(number * schema.BLOCK_ROWS, min((number + 1) * schema.BLOCK_ROWS, num_rows))


def is_committed(path: Path, number: int) -> bool:
    """The block's files still have the digest that was written at its commit."""
    try:
        committed = read(open_group(DurableStore(path, read_only=True)), "block_digest", number)
    except DamageError:
        return False
    return bool(committed.any()) and np.array_equal(committed, schema.block_digest(path, number))


def load_block(path: Path, number: int, dim: int, names: tuple[str, ...] = schema.BLOCK_ARRAYS) -> Block:
    """A committed block, or only some of its arrays, the others empty."""
    group = open_group(DurableStore(path, read_only=True))
    rows = rows_of(number, int(column(group, "status").shape[0]))
    block = Block.empty(rows.stop - rows.start if "embedding" in names else 0, dim)
    for name in names:
        values = np.array(read(group, name, rows, sparse=True))  # its digest was right
        setattr(block, name, values.astype(object) if name == "reason" else values)
    return block


def commit_block(group: zarr.Group, path: Path, number: int, rows: slice, block: Block) -> None:
    """Writes a full block's arrays, then the digest that makes them count."""
    for name, file in schema.block_files(path, number):
        file.unlink(missing_ok=True)  # Zarr would merge into what is there, damaged or not
        column(group, name)[rows] = getattr(block, name)
    column(group, "block_digest")[number] = schema.block_digest(path, number)
