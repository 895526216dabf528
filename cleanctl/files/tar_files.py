"""`TarFiles`: images inside tars, read where they lie. The Storage of a WebDataset source.

A row's fingerprint is its image's size and its tar's modification time: a tar that was written anew has all its images
checked by digest, and only those whose bytes are others are embedded again. Nothing is written.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from cleanctl.files.fingerprints import no_fingerprints
from cleanctl.files.local import unread
from cleanctl.files.storage import Place, Span, Tar
from cleanctl.files.tar_index import TarIndex
from cleanctl.records import FileContent, Fingerprints

GROUP_BYTES = 1 << 25  # what `read` has in memory at a time, or one image if it is larger


@dataclass(frozen=True, kw_only=True)
class TarFiles:
    """keys: N, sorted. tar_N: int32, index into `tars`. offset_N, size_N: int64, bytes."""

    location: str
    place: Place
    tars: tuple[Tar, ...]
    keys: list[str]
    tar_N: np.ndarray
    offset_N: np.ndarray
    size_N: np.ndarray

    @classmethod
    def of(cls, location: str, place: Place, indices: Sequence[TarIndex]) -> tuple[TarFiles, np.ndarray]:
        """The files, and for each row its place among the samples tar by tar: int64 (N,)."""
        keys = [f"{index.shard}/{name}" for index in indices for name in index.names]
        order = np.array(sorted(range(len(keys)), key=keys.__getitem__), dtype=np.int64)
        tar_N = np.repeat(np.arange(len(indices), dtype=np.int32), [len(index.names) for index in indices])
        offset_N = np.array([offset for index in indices for offset in index.offset], dtype=np.int64)
        size_N = np.array([size for index in indices for size in index.size], dtype=np.int64)
        files = cls(
            location=location,
            place=place,
            tars=tuple(index.tar for index in indices),
            keys=[keys[row] for row in order.tolist()],
            tar_N=tar_N[order],
            offset_N=offset_N[order],
            size_N=size_N[order],
        )
        return files, order

    def stat(self, keys: Sequence[str]) -> Fingerprints:
        fingerprints = no_fingerprints(len(keys))
        row_N = self._rows(keys)
        found = row_N >= 0
        mtime_ns = np.array([tar.mtime_ns for tar in self.tars], dtype=np.int64)
        fingerprints.size_N[found] = self.size_N[row_N[found]]
        fingerprints.mtime_ns_N[found] = mtime_ns[self.tar_N[row_N[found]]]
        return fingerprints

    def read(self, keys: Sequence[str]) -> Iterator[FileContent]:
        rows = self._rows(keys).tolist()
        start = 0
        while start < len(rows):
            stop, held = start, 0
            while stop < len(rows) and (stop == start or held < GROUP_BYTES):
                held += int(self.size_N[rows[stop]]) if rows[stop] >= 0 else 0
                stop += 1
            yield from self._read_group(rows[start:stop])
            start = stop

    def head(self, key: str, count: int) -> bytes:
        row = int(self._rows([key])[0])
        if row < 0:
            return b""
        span = self._span(row)
        data = self.place.read_spans([span._replace(size=min(count, span.size))])[0]
        return data if isinstance(data, bytes) else b""

    def _read_group(self, rows: list[int]) -> Iterator[FileContent]:
        parts = iter(self.place.read_spans([self._span(row) for row in rows if row >= 0]))
        for row in rows:
            data = next(parts) if row >= 0 else "not in any of the tars"
            if isinstance(data, str):
                yield unread(data)
            else:
                yield FileContent(data, len(data), self.tars[self.tar_N[row]].mtime_ns)

    def _span(self, row: int) -> Span:
        return Span(self.tars[self.tar_N[row]], int(self.offset_N[row]), int(self.size_N[row]))

    def _rows(self, keys: Sequence[str]) -> np.ndarray:
        """int64 (len(keys),), -1 for a key that is in no tar."""
        if len(keys) == len(self.keys) and keys == self.keys:
            return np.arange(len(keys), dtype=np.int64)
        return np.fromiter((self._row(key) for key in keys), dtype=np.int64, count=len(keys))

    def _row(self, key: str) -> int:
        row = bisect_left(self.keys, key)
        return row if row < len(self.keys) and self.keys[row] == key else -1
