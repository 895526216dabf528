"""Filling one split so that a kill at any moment loses seconds of work and never leaves a wrong row.

Rows are gathered block by block (65,536 rows). While a block is filled, its finished rows are journalled every few
seconds as segments under `.staging/<split>/`; a full block is written as Zarr shards, its digest last. A later run
verifies the digests, reads the segments of the block in hand, and goes on with what is still pending.

Another list of keys makes another generation: `.<split>.next` is filled beside the old split, unchanged rows are
carried over by key and file stamp, and the two folders change places at the end.
"""

from __future__ import annotations

import io
import shutil
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from cleanctl.records import FileStamps, SplitManifest, Status
from cleanctl.store import schema
from cleanctl.store.files import DurableStore, swap_in, sync_folder, write_durably
from cleanctl.store.schema import ATTRIBUTE, BLOCK_ROWS

SEGMENT_SECONDS = 10.0
SEGMENT_ROWS = BLOCK_ROWS  # the clock decides: a bulk import fills a block in less than a segment's time


@dataclass
class _Block:
    """The rows of one block in memory; arrays of the block's length."""

    embedding: np.ndarray
    status: np.ndarray
    reason: np.ndarray
    digest: np.ndarray
    size: np.ndarray
    mtime_ns: np.ndarray

    @classmethod
    def empty(cls, rows: int, dim: int) -> _Block:
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
        self.take(at, _Block.empty(1, self.embedding.shape[1]), np.zeros(len(at), dtype=np.int64))

    def take(self, at: np.ndarray, other: _Block, other_at: np.ndarray) -> None:
        for name in schema.BLOCK_ARRAYS:
            getattr(self, name)[at] = getattr(other, name)[other_at]


class SplitWriter:
    """Gets every row of a manifest to OK or FAILED; made by `Store.write_split`, under the store's lock.

    `pending_rows` says what is left to do; `put` and `fail` settle rows in any order, though ascending rows keep one
    block in memory; `flush` makes all of it durable; `finish` ends the split and raises if a row is still pending.
    """

    def __init__(
        self,
        store_path: Path,
        manifest: SplitManifest,
        *,
        dim: int,
        stamps: FileStamps,
        retry_failures: bool,
    ) -> None:
        self.manifest = manifest
        self.dim = dim
        self.num_rows = len(manifest)
        self.carried = 0
        self._final = store_path / manifest.split
        self._staging = store_path / ".staging" / manifest.split
        self._stamps = stamps
        self._retry = retry_failures
        self._blocks: dict[int, _Block] = {}
        self._dirty: dict[int, list[np.ndarray]] = {}
        self._since = time.monotonic()
        self._sequence = 0
        self._path, self._old = self._choose_generation(store_path)
        self._group = zarr.open_group(store=DurableStore(self._path), mode="r+")
        self._status_N = np.zeros(self.num_rows, dtype=np.uint8)
        self._recover()

    # ---- what the embedding loop calls

    def pending_rows(self) -> np.ndarray:
        """(M,) int64, ascending: the rows that are neither OK nor FAILED yet."""
        return np.flatnonzero(self._status_N == Status.PENDING)

    def counts(self) -> dict[str, int]:
        """Rows by status; they add up to N."""
        return {status.name.lower(): int(np.count_nonzero(self._status_N == status)) for status in Status}

    def put(self, row_B: np.ndarray, embedding_BD: np.ndarray, stamps: FileStamps | None = None) -> None:
        """Settles rows as OK. embedding_BD: float16, finite, L2-normalised."""
        assert embedding_BD.shape == (len(row_B), self.dim)
        assert np.isfinite(embedding_BD).all(), "non-finite embeddings are failures, never rows"
        self._settle(row_B, stamps, status=Status.OK, embedding=embedding_BD)

    def fail(self, row_B: np.ndarray, reasons: list[str], stamps: FileStamps | None = None) -> None:
        """Settles rows as FAILED, each with its reason."""
        assert all(reasons), "a failed row needs a reason"
        self._settle(row_B, stamps, status=Status.FAILED, reason=np.array(reasons, dtype=object))

    def flush(self) -> None:
        """Makes everything settled so far durable (a block that is not full, as a segment)."""
        for number in sorted(self._dirty):
            self._write_segment(number)
        self._since = time.monotonic()

    def finish(self) -> None:
        """Ends the split: every row settled, the new generation in place, the journal gone."""
        pending = len(self.pending_rows())
        assert not pending, f"{pending} rows are still pending"
        self._write_labels()
        self._mark(complete=True)
        if self._path != self._final:
            self._carry_selections()
            swap_in(self._path, self._final)
        shutil.rmtree(self._staging, ignore_errors=True)
        if self._staging.parent.exists() and not any(self._staging.parent.iterdir()):
            self._staging.parent.rmdir()

    # ---- generations

    def _choose_generation(self, store_path: Path) -> tuple[Path, Path | None]:
        """The folder to fill, and an older generation to carry rows over from."""
        fingerprint = schema.manifest_fingerprint(self.manifest)
        following = store_path / f".{self.manifest.split}.next"
        if _fingerprint_of(self._final) == fingerprint:
            shutil.rmtree(following, ignore_errors=True)
            return self._final, None
        if _fingerprint_of(following) != fingerprint:
            shutil.rmtree(self._staging, ignore_errors=True)
            shutil.rmtree(following, ignore_errors=True)
            self._create(store_path / f".{self.manifest.split}.making", following, fingerprint)
        if self._final.exists():
            return following, self._final
        following.rename(self._final)
        sync_folder(store_path)
        return self._final, None

    def _create(self, making: Path, target: Path, fingerprint: str) -> None:
        """The group with its keys and empty arrays appears under its name in one rename."""
        shutil.rmtree(making, ignore_errors=True)
        attributes = {"keys_sha256": fingerprint, "rows": self.num_rows, "complete": False}
        group = zarr.create_group(DurableStore(making), attributes={ATTRIBUTE: attributes})
        schema.create_split_arrays(group, self.num_rows, self.dim)
        schema.write_column(group, "key", self.manifest.keys, "string")
        self._write_labels(group)
        swap_in(making, target)

    def _write_labels(self, group: zarr.Group | None = None) -> None:
        group = group if group is not None else self._group
        columns = {"label": self.manifest.label_N}
        if self.manifest.truth_N is not None:
            columns["truth"] = self.manifest.truth_N
        elif "truth" in group:
            del group["truth"]
        for name, values in columns.items():
            if name not in group or not np.array_equal(schema.read(group, name), values):
                schema.write_column(group, name, values, "int32")

    def _mark(self, **values: Any) -> None:
        attributes: Any = self._group.attrs[ATTRIBUTE]
        if any(attributes.get(key) != value for key, value in values.items()):
            self._group.attrs[ATTRIBUTE] = {**attributes, **values}

    def _carry_selections(self) -> None:
        """Selections made before rows came or went: kept by key, marked stale. Scores are cheap and dropped."""
        old = self._final / "selections"
        if not old.exists():
            return
        where = {key: row for row, key in enumerate(self.manifest.keys)}
        old_keys = schema.read(schema.open_read_only(self._final), "key")
        new_row = np.array([where.get(str(key), -1) for key in old_keys], dtype=np.int64)
        for entry in sorted(old.iterdir()):
            if entry.name.startswith(".") or not (entry / "zarr.json").exists():
                continue
            source = schema.open_read_only(entry)
            target = zarr.create_group(
                DurableStore(self._path / "selections" / entry.name),
                attributes={**dict(source.attrs), "stale": True},
                overwrite=True,
            )
            for name, array in source.arrays():
                values = np.asarray(array[...])
                moved = np.full(self.num_rows, np.nan if values.dtype.kind == "f" else 0, dtype=values.dtype)
                moved[new_row[new_row >= 0]] = values[new_row >= 0]
                schema.write_column(target, name, moved, values.dtype.name)

    # ---- recovering what an earlier run left

    def _recover(self) -> None:
        segments = self._read_segments()
        carry = self._carry_plan()
        for number in range(schema.num_blocks(self.num_rows)):
            rows = self._rows_of(number)
            if _is_committed(self._path, number):
                self._recover_committed(number, rows)
                continue
            block = _Block.empty(rows.stop - rows.start, self.dim)
            for at, segment in segments.pop(number, ()):
                block.take(at, segment, np.arange(len(at)))
            kept = self._carry_over(block, rows, carry)
            block.forget(self._stale(block, rows))
            self._keep(number, block, journal=kept > 0)

    def _recover_committed(self, number: int, rows: slice) -> None:
        """A whole block stays as it is unless some of its files changed; then its other rows go back to the journal."""
        light = _load_block(self._path, number, self.dim, names=("status", "digest", "size", "mtime_ns"))
        stale = self._stale(light, rows)
        light.status[stale] = Status.PENDING
        self._status_N[rows] = light.status
        if not stale.any():
            return
        self._mark(complete=False)
        block = _load_block(self._path, number, self.dim)
        block.forget(stale)
        self._keep(number, block, journal=True)
        schema.column(self._group, "block_digest")[number] = 0

    def _keep(self, number: int, block: _Block, *, journal: bool) -> None:
        """Takes over what was recovered of a block; rows that are in no segment yet are journalled first."""
        self._status_N[self._rows_of(number)] = block.status
        settled = np.flatnonzero(block.status)
        if not len(settled):
            return
        self._blocks[number] = block
        if block.full:
            self._commit_if_full(number)
            return
        if journal:
            self._dirty[number] = [settled]
            self._write_segment(number)
        del self._blocks[number]  # read again from the journal when its turn comes

    def _stale(self, block: _Block, rows: slice) -> np.ndarray:
        """(rows,) bool: settled rows whose file is another one now, or whose failure is to be tried again."""
        now = self._stamps.at(rows)
        same_file = (block.size == now.size_N) & (block.mtime_ns == now.mtime_ns_N)
        known = now.digest_N16.any(axis=1) & block.digest.any(axis=1)
        same_content = (block.digest == now.digest_N16).all(axis=1)
        stale = ~np.where(known, same_content, same_file)
        if self._retry:
            stale |= block.status == Status.FAILED
        return stale & (block.status != Status.PENDING)

    def _carry_plan(self) -> np.ndarray | None:
        """(N,) int64: the row of the older generation that has the same key, or -1."""
        if self._old is None:
            return None
        old = schema.open_read_only(self._old)
        if schema.column(old, "embedding").shape[1] != self.dim:
            return None
        where = {str(key): row for row, key in enumerate(schema.read(old, "key"))}
        return np.array([where.get(key, -1) for key in self.manifest.keys], dtype=np.int64)

    def _carry_over(self, block: _Block, rows: slice, carry: np.ndarray | None) -> int:
        if carry is None or self._old is None:
            return 0
        at = np.flatnonzero((carry[rows] >= 0) & (block.status == Status.PENDING))
        source = carry[rows][at]
        count = 0
        for number in np.unique(source // BLOCK_ROWS):
            if not _is_committed(self._old, int(number)):
                continue
            old = _load_block(self._old, int(number), self.dim)
            here = source // BLOCK_ROWS == number
            block.take(at[here], old, source[here] - int(number) * BLOCK_ROWS)
            count += int(np.count_nonzero(here))
        self.carried += count
        return count

    def _rows_of(self, number: int) -> slice:
        return slice(number * BLOCK_ROWS, min((number + 1) * BLOCK_ROWS, self.num_rows))

    # ---- settling rows

    def _settle(self, row_B: np.ndarray, stamps: FileStamps | None, **values: Any) -> None:
        row_B = np.asarray(row_B, dtype=np.int64)
        stamps = self._stamps.at(row_B) if stamps is None else stamps
        for number in np.unique(row_B // BLOCK_ROWS):
            pick = np.flatnonzero(row_B // BLOCK_ROWS == number)
            at = row_B[pick] - int(number) * BLOCK_ROWS
            block = self._open_block(int(number))
            for name, value in values.items():
                getattr(block, name)[at] = value[pick] if isinstance(value, np.ndarray) else value
            block.digest[at] = stamps.digest_N16[pick]
            block.size[at] = stamps.size_N[pick]
            block.mtime_ns[at] = stamps.mtime_ns_N[pick]
            self._status_N[row_B[pick]] = block.status[at]
            self._dirty.setdefault(int(number), []).append(at)
            self._commit_if_full(int(number))
        waiting = sum(len(at) for parts in self._dirty.values() for at in parts)
        if waiting >= SEGMENT_ROWS or time.monotonic() - self._since > SEGMENT_SECONDS:
            self.flush()

    def _open_block(self, number: int) -> _Block:
        if number not in self._blocks:
            for other in [n for n in self._blocks if n not in self._dirty]:
                del self._blocks[other]
            rows = self._rows_of(number)
            block = _Block.empty(rows.stop - rows.start, self.dim)
            for at, segment in self._read_segments(number).get(number, ()):
                block.take(at, segment, np.arange(len(at)))
            block.forget(self._status_N[rows] == Status.PENDING)
            self._blocks[number] = block
        return self._blocks[number]

    def _commit_if_full(self, number: int) -> None:
        """A full block becomes shards; its digest, written last, is the commit."""
        block = self._blocks[number]
        if not block.full:
            return
        rows = self._rows_of(number)
        for name, path in schema.block_files(self._path, number):
            path.unlink(missing_ok=True)  # Zarr would merge into what is there, damaged or not
            schema.column(self._group, name)[rows] = getattr(block, name)
        schema.column(self._group, "block_digest")[number] = schema.block_digest(self._path, number)
        del self._blocks[number]
        self._dirty.pop(number, None)
        for path in self._staging.glob(f"{number:07d}-*.npz"):
            path.unlink()

    # ---- the journal

    def _write_segment(self, number: int) -> None:
        parts = self._dirty.pop(number, [])
        if not parts:
            return
        block, at = self._blocks[number], np.unique(np.concatenate(parts))
        arrays = {name: getattr(block, name)[at] for name in schema.BLOCK_ARRAYS}
        arrays["reason"] = arrays["reason"].astype(np.str_)
        buffer = io.BytesIO()
        np.savez(buffer, at=at, **arrays)
        while (path := self._staging / f"{number:07d}-{self._sequence:07d}.npz").exists():
            self._sequence += 1
        write_durably(path, buffer.getbuffer())
        self._sequence += 1

    def _read_segments(self, only: int | None = None) -> dict[int, list[tuple[np.ndarray, _Block]]]:
        """block number → its segments, oldest first; a segment that is cut short or altered is dropped."""
        found: dict[int, list[tuple[np.ndarray, _Block]]] = {}
        pattern = "*.npz" if only is None else f"{only:07d}-*.npz"
        for path in sorted(self._staging.glob(pattern)):
            try:
                with np.load(path, allow_pickle=False) as arrays:
                    block = _Block(**{name: arrays[name] for name in schema.BLOCK_ARRAYS})
                    at = arrays["at"]
            except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
                path.unlink(missing_ok=True)
                continue
            if block.embedding.shape[1] == self.dim:
                found.setdefault(int(path.stem.split("-")[0]), []).append((at, block))
        return found


def _fingerprint_of(path: Path) -> str | None:
    if not (path / "zarr.json").exists():
        return None
    attributes: Any = schema.open_read_only(path).attrs.get(ATTRIBUTE, {})
    return attributes.get("keys_sha256")


def _is_committed(path: Path, number: int) -> bool:
    """The block's files still have the digest that was written at its commit."""
    group = schema.open_read_only(path)
    committed = schema.read(group, "block_digest", number)
    return bool(committed.any()) and np.array_equal(committed, schema.block_digest(path, number))


def _load_block(path: Path, number: int, dim: int, names: tuple[str, ...] = schema.BLOCK_ARRAYS) -> _Block:
    """A committed block, or only some of its arrays, the others empty."""
    group = schema.open_read_only(path)
    length = int(schema.column(group, "status").shape[0])
    rows = slice(number * BLOCK_ROWS, min((number + 1) * BLOCK_ROWS, length))
    block = _Block.empty(rows.stop - rows.start if "embedding" in names else 0, dim)
    for name in names:
        values = np.array(schema.read(group, name, rows))
        setattr(block, name, values.astype(object) if name == "reason" else values)
    return block
