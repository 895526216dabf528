"""One split of a store, read: columns, embeddings block by block, scores and selections by name."""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from cleanctl.errors import StoreError
from cleanctl.files.keys import Keys
from cleanctl.records import Fingerprints, Shard, Status
from cleanctl.store import schema
from cleanctl.store.arrays import column, open_group, read, read_keys
from cleanctl.store.block import Block, rows_of
from cleanctl.store.files import EMBED_AGAIN, DamageError, DurableStore
from cleanctl.store.generation import staging_folder
from cleanctl.store.journal import Journal
from cleanctl.store.schema import ATTRIBUTE, label_fingerprint
from cleanctl.store.stored import Result, Results, StoredSample, StoredScore, StoredSelection

Kind = Literal["scores", "selections"]


class Split:
    def __init__(self, store_path: Path, name: str) -> None:
        self.store_path = store_path
        self.name = name
        self.path = store_path / name
        self._store = DurableStore.pinned(self.path)
        self._group = open_group(self._store)

    # ---- columns

    @property
    def attributes(self) -> dict[str, Any]:
        value: Any = open_group(self._store).attrs.get(ATTRIBUTE, {})
        return dict(value)

    @property
    def num_rows(self) -> int:
        return int(column(self._group, "status").shape[0])

    @property
    def dim(self) -> int:
        """Embedding size D."""
        return int(column(self._group, "embedding").shape[1])

    @property
    def shard_rows(self) -> int:
        """Rows of one file of the embeddings."""
        shards = column(self._group, "embedding").shards
        return int(shards[0]) if shards else schema.BLOCK_ROWS

    @property
    def complete(self) -> bool:
        """Every row has ended ok or failed."""
        return bool(self.attributes.get("complete", False))

    def keys(self, rows: slice = slice(None)) -> Keys:
        """(N,) str, in store order."""
        return read_keys(self._group, "key", rows, chunk_rows=schema.BLOCK_ROWS)

    def label_N(self) -> np.ndarray:
        """(N,) int32, 0…C-1."""
        return self._read("label")

    def truth_N(self) -> np.ndarray | None:
        """(N,) int32 with -1 where the truth of a row is unknown; None where no truth was given."""
        return self._read("truth") if (self._store.root / "truth").is_dir() else None

    def status_N(self) -> np.ndarray:
        """(N,) uint8, see Status. Rows of a block that is not committed count as pending."""
        status_N = self._read("status")
        if not self.complete:
            committed = self._read("block_digest").any(axis=1)
            status_N[~np.repeat(committed, schema.BLOCK_ROWS)[: len(status_N)]] = Status.PENDING
        return status_N

    def committed(self) -> tuple[np.ndarray, dict[int, str]]:
        """status_N with what the journal holds of blocks that are not whole yet, and row → reason of the failed."""
        status_N = self.status_N()
        reasons: dict[int, str] = {}
        failed_F = np.flatnonzero(status_N == Status.FAILED)
        for number in np.unique(failed_F // schema.BLOCK_ROWS).tolist():
            rows = rows_of(number, len(status_N))
            reason_B = self._read("reason", rows)
            here = failed_F[(failed_F >= rows.start) & (failed_F < rows.stop)].tolist()
            reasons |= {row: str(reason_B[row - rows.start]) for row in here}
        if self.complete:
            return status_N, reasons
        journal = Journal(staging_folder(self.store_path, self.name), self.dim, "reader")
        for number in journal.numbers():
            rows = rows_of(number, self.num_rows)
            if (status_N[rows] != Status.PENDING).any():
                continue  # committed: the journal was not yet tidied
            block = Block.empty(rows.stop - rows.start, self.dim)
            journal.replay(number, block)
            status_N[rows] = block.status
            failed = np.flatnonzero(block.status == Status.FAILED)
            reasons |= {rows.start + int(at): str(block.reason[at]) for at in failed}
        return status_N, reasons

    def ok_rows(self) -> np.ndarray:
        """(N_ok,) int64, ascending: which row of the split each row of `blocks` is."""
        return np.flatnonzero(self.status_N() == Status.OK)

    def fingerprints(self, rows: slice = slice(None)) -> Fingerprints:
        """Which file content each row stands for; zero digests where it was not read."""
        return Fingerprints(
            digest_N16=self._read("digest", rows),
            size_N=self._read("size", rows),
            mtime_ns_N=self._read("mtime_ns", rows),
        )

    def contents(self) -> Iterator[np.ndarray]:
        """(B, 16) uint8, block by block: the digest of each row's file, zeros where it was not read."""
        for first in range(0, self.num_rows, schema.BLOCK_ROWS):
            yield self._read("digest", slice(first, first + schema.BLOCK_ROWS))

    def failures(self) -> dict[int, str]:
        """row → reason, for every failed row, in ascending order."""
        return dict(sorted(self.committed()[1].items()))

    def content_fingerprint(self) -> str:
        """SHA-256 of the digests of all blocks: of embeddings, statuses and which files they stand for."""
        return hashlib.sha256(np.ascontiguousarray(self._read("block_digest")).tobytes()).hexdigest()

    def label_fingerprint(self) -> str:
        """SHA-256 of the labels: scores made from other labels are stale."""
        return label_fingerprint(self.label_N())

    def require_unchanged(self, labels: str) -> None:
        """StoreError where the split has other rows by now than those that this reads, or other labels than those of
        the fingerprint `labels`: for who stores what was computed from them."""
        try:
            same = os.path.samestat(os.stat(self._store.root), os.stat(self.path))
        except FileNotFoundError:
            same = False
        if not same or self.label_fingerprint() != labels:
            raise self.changed()

    def changed(self) -> StoreError:
        """For what was computed from images or labels that another process has replaced since."""
        return StoreError(
            f"The images or labels of split {self.name!r} of {self.store_path} changed while this ran.",
            so="What was computed from the former ones is not stored.",
            do="Run the same command again.",
        )

    def require_complete(self, *, partial: bool = False) -> None:
        """StoreError unless every row has ended, or `partial` accepts what is there."""
        if self.complete or partial:
            return
        status_N, _ = self.committed()
        done = int(np.count_nonzero(status_N != Status.PENDING))
        raise StoreError(
            f"Split {self.name!r} of {self.store_path} is not complete: {done:,} of {len(status_N):,} rows are "
            f"embedded{self._missing_shards(status_N)}.",
            so="A result from a part of the images would pass for one of all.",
            do="Run the same cleanctl embed again (it goes on where it stopped), or accept the part with --partial.",
        )

    def _missing_shards(self, status_N: np.ndarray) -> str:
        """Which processes of `embed --shard I/N` have not ended."""
        count = int(self.attributes.get("shares", 0))
        shares = [Shard(index, count) for index in range(count)]
        left = [str(one) for one in shares if (status_N[one.rows(len(status_N))] == Status.PENDING).any()]
        return f"; missing are rows of the shards {', '.join(left)}" if left else ""

    # ---- embeddings

    def blocks(self, *, status_N: np.ndarray | None = None) -> Blocks:
        """The embeddings of the rows that are OK (EmbeddingBlocks), at most 65,536 rows at a time."""
        return Blocks(self, self.status_N() if status_N is None else status_N)

    def embeddings(self, rows: slice) -> np.ndarray:
        """(B, D) float16 of a slice of rows, NaN where there is none; StoreError if a checksum fails."""
        return self._read("embedding", rows)

    def require_shard(self, number: int) -> None:
        """DamageError if the embeddings of a block are gone: Zarr would read NaN."""
        shard = self._store.root / "embedding" / "c" / str(number) / "0"
        if not shard.is_file() or not shard.stat().st_size:
            raise DamageError.of(self.path / "embedding", f"its file c/{number}/0 is missing or empty", EMBED_AGAIN)

    # ---- scores and selections

    @property
    def scores(self) -> Results[StoredScore]:
        return Results(self.store_path, self.name, "scores", StoredScore, self._store.root, self._store)

    @property
    def selections(self) -> Results[StoredSelection]:
        return Results(self.store_path, self.name, "selections", StoredSelection, self._store.root, self._store)

    @property
    def samples(self) -> Results[StoredSample]:
        return Results(self.store_path, self.name, "samples", StoredSample, self._store.root, self._store)

    def stale_selections(self) -> list[str]:
        """Names of selections that were made before images or labels of the split changed."""
        stored = self.selections.attributes(damaged=False)
        return [name for name, attributes in stored.items() if attributes.get("stale")]

    def results(self, kind: Kind) -> dict[str, dict[str, Any]]:
        """name → attributes of everything stored under `kind`, oldest first."""
        return self._kind(kind).attributes()

    def read_result(self, kind: Kind, name: str) -> Result:
        return self._kind(kind).read(name)

    def write_result(
        self, kind: Kind, name: str, arrays: Mapping[str, np.ndarray], attributes: Mapping[str, Any]
    ) -> None:
        """Stores arrays of length N under a name, replacing an older result of that name whole or not at all."""
        for key, values in arrays.items():
            assert len(values) == self.num_rows, f"{kind}/{name}/{key} has {len(values)} rows"
        self._kind(kind).write(name, arrays, attributes)

    def _kind(self, kind: Kind) -> Results[Any]:
        return self.scores if kind == "scores" else self.selections

    # ---- inside

    def _read(self, name: str, rows: slice = slice(None)) -> np.ndarray:
        """Rows of blocks that are not committed yet read as fill values."""
        sparse = name in (*schema.BLOCK_ARRAYS, "block_digest") and not self.complete
        return read(self._group, name, rows, sparse=sparse)


class Blocks:
    """EmbeddingBlocks over the OK rows of a split; each iteration reads the shards again."""

    def __init__(self, split: Split, status_N: np.ndarray) -> None:
        self._split = split
        self._ok_N = np.asarray(status_N) == Status.OK
        self._block_rows = split.shard_rows
        self.num_rows = int(np.count_nonzero(self._ok_N))
        self.dim = split.dim

    def __iter__(self) -> Iterator[tuple[slice, np.ndarray]]:
        yield from self.within(slice(0, self.num_rows))

    def within(self, part: slice) -> Iterator[tuple[slice, np.ndarray]]:
        """The blocks that hold OK rows of `part`, whole; of the others nothing is read."""
        start = 0
        for first in range(0, len(self._ok_N), self._block_rows):
            ok_B = self._ok_N[first : first + self._block_rows]
            rows = slice(start, start + int(np.count_nonzero(ok_B)))
            start = rows.stop
            if max(rows.start, part.start) >= min(rows.stop, part.stop):
                continue
            self._split.require_shard(first // self._block_rows)
            image_BD = self._split.embeddings(slice(first, first + len(ok_B)))
            yield rows, image_BD if rows.stop - rows.start == len(ok_B) else image_BD[ok_B]

    def parts(self, most: int) -> list[slice]:
        """The OK rows in at most `most` pieces of whole blocks, of about as many blocks each, so that a process that
        has one of them reads no shard of another's."""
        counts = [
            int(np.count_nonzero(self._ok_N[first : first + self._block_rows]))
            for first in range(0, len(self._ok_N), self._block_rows)
        ]
        stops = np.cumsum([count for count in counts if count])
        pieces = [piece for piece in np.array_split(stops, max(1, min(most, len(stops)))) if len(piece)]
        starts = [0, *(int(piece[-1]) for piece in pieces)]
        return [slice(start, stop) for start, stop in itertools.pairwise(starts)]
