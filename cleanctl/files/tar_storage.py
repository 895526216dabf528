"""`TarStorage`: images inside tars, read where they lie; the storage of a WebDataset source.

A row's fingerprint is its image's size and its tar's modification time: a tar that was written again has all its images
checked by digest, and only those whose bytes are others are embedded again. Nothing is written.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from cleanctl.files.fingerprints import MISSING, no_fingerprints
from cleanctl.files.keys import Keys, KeysBuilder
from cleanctl.files.storage import Span, Tar, TreeStorage, in_groups, too_large, unread
from cleanctl.files.tar_index import TarIndex
from cleanctl.records import FileContent, Fingerprints


@dataclass(frozen=True, kw_only=True)
class TarStorage:
    """keys: N, sorted. tar_N: int32, index into `tars`. offset_N, size_N: int64, bytes."""

    location: str
    tree: TreeStorage
    tars: tuple[Tar, ...]
    keys: Keys
    tar_N: np.ndarray
    offset_N: np.ndarray
    size_N: np.ndarray

    @classmethod
    def of(cls, location: str, tree: TreeStorage, indices: Sequence[TarIndex]) -> tuple[TarStorage, np.ndarray | slice]:
        """The files, and for each row its place among the samples tar by tar: int64 (N,), or a slice of all where that
        is its number."""
        builder = KeysBuilder()
        for index in indices:
            folder = f"{index.shard}/"
            for _, names in index.names.blocks():
                builder.extend([folder + name for name in names])
        keys, order_N = _in_order(builder.keys())
        none = np.zeros(0, np.int64)
        files = cls(
            location=location,
            tree=tree,
            tars=tuple(index.tar for index in indices),
            keys=keys,
            tar_N=np.repeat(np.arange(len(indices), dtype=np.int32), [len(one.names) for one in indices])[order_N],
            offset_N=np.concatenate([none, *(index.offset_N for index in indices)])[order_N],
            size_N=np.concatenate([none, *(index.size_N for index in indices)])[order_N],
        )
        return files, order_N

    def stat(self, keys: Sequence[str]) -> Fingerprints:
        fingerprints = no_fingerprints(len(keys))
        row_N = self.keys.rows_of(keys)
        found = row_N >= 0
        mtime_ns = np.array([tar.mtime_ns for tar in self.tars], dtype=np.int64)
        fingerprints.size_N[found] = self.size_N[row_N[found]]
        fingerprints.mtime_ns_N[found] = mtime_ns[self.tar_N[row_N[found]]]
        return fingerprints

    def read(self, keys: Sequence[str]) -> Iterator[FileContent]:
        row_N = self.keys.rows_of(keys)
        size_N = np.where(row_N >= 0, self.size_N[row_N], MISSING) if len(self.keys) else row_N
        for group in in_groups(size_N.tolist()):
            yield from self._read_group(row_N[group].tolist())

    def head(self, key: str, count: int) -> bytes:
        row = int(self.keys.rows_of([key])[0])
        if row < 0:
            return b""
        span = self._span(row)
        data = self.tree.read_spans([span._replace(size=min(count, span.size))])[0]
        return data if isinstance(data, bytes) else b""

    def _read_group(self, rows: list[int]) -> Iterator[FileContent]:
        spans = {row: self._span(row) for row in rows if row >= 0}
        fetched = {row: span for row, span in spans.items() if not too_large(span.size)}
        data_of = dict(zip(fetched, self.tree.read_spans(list(fetched.values()))))
        for row in rows:
            data = data_of.get(row) if row in fetched else too_large(spans[row].size) if row >= 0 else "file not found"
            if isinstance(data, bytes):
                yield FileContent(data, len(data), self.tars[self.tar_N[row]].mtime_ns)
            else:
                yield unread(str(data))

    def _span(self, row: int) -> Span:
        return Span(self.tars[self.tar_N[row]], int(self.offset_N[row]), int(self.size_N[row]))


def _in_order(keys: Keys) -> tuple[Keys, np.ndarray | slice]:
    return (keys, slice(None)) if keys.increasing else keys.sorted()
