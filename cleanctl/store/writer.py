"""Filling one split so that a kill at any moment loses seconds of work and never leaves a wrong row.

Rows are gathered block by block (65,536 rows). While a block is filled, its finished rows are journalled every few
seconds (`journal.py`); a full block is written as Zarr shards, its digest last (`block.py`). A later run verifies the
digests, replays the journal of the block in hand, and goes on with what is still pending.

Several processes may fill one split, each a shard of its rows. A shard's writer commits the blocks that lie wholly in
it; rows of blocks that it has in common with a neighbour stay in the journal until the split is finished.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from cleanctl.records import Fingerprints, SplitManifest, Status
from cleanctl.store import schema
from cleanctl.store.arrays import column, open_group
from cleanctl.store.block import Block, commit_block, is_committed, load_block, rows_of
from cleanctl.store.files import DurableStore, swap_in
from cleanctl.store.generation import (
    Generation,
    carry_plan,
    carry_selections,
    mark,
    mark_selections_stale,
    staging_folder,
    write_labels,
)
from cleanctl.store.journal import Journal

SEGMENT_SECONDS = 10.0
SEGMENT_ROWS = schema.BLOCK_ROWS  # the clock decides: a bulk import fills a block in less than a segment's time


class SplitWriter:
    """Gets the rows of a manifest, or of one shard of it, to OK or FAILED; made by `Store.write_split`.

    `pending_rows` says what is left to do; `put` and `fail` commit rows in any order, though ascending rows keep one
    block in memory; `flush` makes all of it durable; `finish` ends the split and raises if a row is still pending.

    fingerprints: of the shard's rows, in order, as the files are now; None takes every committed row as it is.
    """

    def __init__(
        self,
        store_path: Path,
        manifest: SplitManifest,
        generation: Generation,
        *,
        dim: int,
        fingerprints: Fingerprints | None,
        retry_failures: bool = False,
        shard: slice | None = None,
        tag: str = "all",
    ) -> None:
        self.manifest = manifest
        self.dim = dim
        self.num_rows = len(manifest)
        self.shard = slice(0, self.num_rows) if shard is None else shard
        self._final = store_path / manifest.split
        self._path, self._old = generation.path, generation.old
        self._fingerprints = fingerprints
        self._retry = retry_failures
        self._journal = Journal(staging_folder(store_path, manifest.split), dim, tag)
        self._blocks: dict[int, Block] = {}
        self._dirty: dict[int, list[np.ndarray]] = {}
        self._since = time.monotonic()
        self._group = open_group(DurableStore(self._path))
        self._status_N = np.zeros(self.num_rows, dtype=np.uint8)
        self._recover()

    # ---- what the embedding loop calls

    def pending_rows(self) -> np.ndarray:
        """(M,) int64, ascending: the rows of the shard that are neither OK nor FAILED yet."""
        return self.shard.start + np.flatnonzero(self._status_N[self.shard] == Status.PENDING)

    def counts(self) -> dict[str, int]:
        """Rows of the shard by status; they add up to its length."""
        mine = self._status_N[self.shard]
        return {status.name.lower(): int(np.count_nonzero(mine == status)) for status in Status}

    def put(self, row_B: np.ndarray, embedding_BD: np.ndarray, fingerprints: Fingerprints | None = None) -> None:
        """Commits rows as OK. embedding_BD: float16, finite, L2-normalised."""
        assert embedding_BD.shape == (len(row_B), self.dim)
        assert np.isfinite(embedding_BD).all(), "non-finite embeddings are failures, never rows"
        self._commit_rows(row_B, fingerprints, status=Status.OK, embedding=embedding_BD)

    def fail(self, row_B: np.ndarray, reasons: list[str], fingerprints: Fingerprints | None = None) -> None:
        """Commits rows as FAILED, each with its reason."""
        assert all(reasons), "a failed row needs a reason"
        self._commit_rows(row_B, fingerprints, status=Status.FAILED, reason=np.array(reasons, dtype=object))

    def flush(self) -> None:
        """Makes everything committed so far durable (a block that is not full, as a segment of the journal)."""
        for number in sorted(self._dirty):
            at = np.unique(np.concatenate(self._dirty.pop(number)))
            self._journal.add(number, at, self._blocks[number])
        self._since = time.monotonic()

    def finish(self) -> None:
        """Ends the split: every row committed, the new generation in place, the journal gone."""
        assert self.shard == slice(0, self.num_rows), "a shard is not the split"
        pending = len(self.pending_rows())
        assert not pending, f"{pending} rows are still pending"
        write_labels(self._group, self._path, self.manifest)
        mark(self._group, complete=True, shares=None)
        if self._path != self._final:
            carry_selections(self._final, self._path, self.manifest)
            swap_in(self._final, self._path)
        self._journal.clear()

    # ---- recovering what an earlier run left

    def _recover(self) -> None:
        carry = None if self._old is None else carry_plan(self._old, self.manifest, self.dim)
        if self.shard.start >= self.shard.stop:
            return
        for number in range(self.shard.start // schema.BLOCK_ROWS, schema.num_blocks(self.shard.stop)):
            if is_committed(self._path, number):
                self._recover_committed(number)
            else:
                self._recover_open(number, carry)

    def _recover_committed(self, number: int) -> None:
        """A whole block stays as it is unless some of its files changed; then its other rows go to the journal."""
        rows = self._rows_of(number)
        if self._owns(rows):
            self._journal.drop(number)  # a kill came between the commit and this
        light = load_block(self._path, number, self.dim, names=("status", "digest", "size", "mtime_ns"))
        stale = self._stale(light, rows)
        light.status[stale] = Status.PENDING
        self._status_N[rows] = light.status
        if not stale.any():
            return
        mark(self._group, complete=False)
        mark_selections_stale(self._path)
        block = load_block(self._path, number, self.dim)
        self._journal.add_base(number, block)
        block.forget(stale)
        self._journal.add(number, np.flatnonzero(stale), block)
        column(self._group, "block_digest")[number] = 0

    def _recover_open(self, number: int, carry: np.ndarray | None) -> None:
        rows = self._rows_of(number)
        block = Block.empty(rows.stop - rows.start, self.dim)
        self._journal.replay(number, block)
        carried = self._carry_over(block, rows, carry)
        stale = self._stale(block, rows)
        block.forget(stale)
        self._status_N[rows] = block.status
        if block.full and self._owns(rows):
            self._commit_block(number, block)
            return
        changed = np.union1d(carried, np.flatnonzero(stale))
        if len(changed):
            self._journal.add(number, changed, block)

    def _stale(self, block: Block, rows: slice) -> np.ndarray:
        """(rows,) bool: committed rows of the shard whose file is another one now, or whose failure is tried again."""
        stale = np.zeros(rows.stop - rows.start, dtype=bool)
        if self._fingerprints is None:
            return stale
        here = slice(max(rows.start, self.shard.start), min(rows.stop, self.shard.stop))
        at = slice(here.start - rows.start, here.stop - rows.start)
        now = self._fingerprints.at(slice(here.start - self.shard.start, here.stop - self.shard.start))
        same_file = (block.size[at] == now.size_N) & (block.mtime_ns[at] == now.mtime_ns_N)
        known = now.digest_N16.any(axis=1) & block.digest[at].any(axis=1)
        same_content = (block.digest[at] == now.digest_N16).all(axis=1)
        stale[at] = ~np.where(known, same_content, same_file)
        if self._retry:
            stale[at] |= block.status[at] == Status.FAILED
        return stale & (block.status != Status.PENDING)

    def _carry_over(self, block: Block, rows: slice, carry: np.ndarray | None) -> np.ndarray:
        """Takes pending rows of the shard from the older generation; gives where in the block they are."""
        if carry is None or self._old is None:
            return np.zeros(0, dtype=np.int64)
        row_R = np.arange(rows.start, rows.stop)
        mine = (row_R >= self.shard.start) & (row_R < self.shard.stop)
        at = np.flatnonzero(mine & (carry[rows] >= 0) & (block.status == Status.PENDING))
        source = carry[rows][at]
        taken = np.zeros(len(at), dtype=bool)
        for number in np.unique(source // schema.BLOCK_ROWS):
            if not is_committed(self._old, int(number)):
                continue
            old = load_block(self._old, int(number), self.dim)
            here = source // schema.BLOCK_ROWS == number
            block.take(at[here], old, source[here] - int(number) * schema.BLOCK_ROWS)
            taken |= here
        return at[taken]

    def _rows_of(self, number: int) -> slice:
        return rows_of(number, self.num_rows)

    def _owns(self, rows: slice) -> bool:
        return self.shard.start <= rows.start and rows.stop <= self.shard.stop

    # ---- committing rows

    def _commit_rows(self, row_B: np.ndarray, fingerprints: Fingerprints | None, **values: Any) -> None:
        row_B = np.asarray(row_B, dtype=np.int64)
        if fingerprints is None:
            assert self._fingerprints is not None
            fingerprints = self._fingerprints.at(row_B - self.shard.start)
        for number in np.unique(row_B // schema.BLOCK_ROWS):
            pick = np.flatnonzero(row_B // schema.BLOCK_ROWS == number)
            at = row_B[pick] - int(number) * schema.BLOCK_ROWS
            block = self._open_block(int(number))
            for name, value in values.items():
                getattr(block, name)[at] = value[pick] if isinstance(value, np.ndarray) else value
            block.digest[at] = fingerprints.digest_N16[pick]
            block.size[at] = fingerprints.size_N[pick]
            block.mtime_ns[at] = fingerprints.mtime_ns_N[pick]
            self._status_N[row_B[pick]] = block.status[at]
            self._dirty.setdefault(int(number), []).append(at)
            if block.full and self._owns(self._rows_of(int(number))):
                self._commit_block(int(number), block)
        waiting = sum(len(at) for parts in self._dirty.values() for at in parts)
        if waiting >= SEGMENT_ROWS or time.monotonic() - self._since > SEGMENT_SECONDS:
            self.flush()

    def _open_block(self, number: int) -> Block:
        if number not in self._blocks:
            for other in [n for n in self._blocks if n not in self._dirty]:
                del self._blocks[other]
            rows = self._rows_of(number)
            block = Block.empty(rows.stop - rows.start, self.dim)
            self._journal.replay(number, block)
            self._blocks[number] = block
        return self._blocks[number]

    def _commit_block(self, number: int, block: Block) -> None:
        commit_block(self._group, self._path, number, self._rows_of(number), block)
        self._blocks.pop(number, None)
        self._dirty.pop(number, None)
        self._journal.drop(number)
