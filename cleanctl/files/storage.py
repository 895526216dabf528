"""What the storages share: the parts of a tar, the reasons of what cannot be read, and how much is read at a time.

A storage gives the bytes of a source's files by key (`records.Storage`). `LocalStorage` and `UrlStorage` are trees:
they also list what is there, and read spans of the tars in it for a `TarStorage`. Nothing is written, and no handle is
kept between calls.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import ClassVar, NamedTuple, Protocol

from cleanctl.files.fingerprints import MISSING
from cleanctl.files.listing import Scan
from cleanctl.files.tar_headers import Pread
from cleanctl.records import FileContent, Storage

READ_LIMIT = 1 << 30  # bytes; no photograph is larger, and a damaged size must not take the machine's memory
GROUP_BYTES = 1 << 25  # what `read` has in memory at a time, or one file if it is larger
GROUP_FILES = 256
CHANGED = "the file has changed since it was listed; run again"


class Tar(NamedTuple):
    """name: its path relative to the storage. mtime_ns: any number that another content would change."""

    name: str
    size: int
    mtime_ns: int


class Span(NamedTuple):
    tar: Tar
    start: int
    size: int


class TreeStorage(Storage, Protocol):
    """`window` bytes are read at a time where headers are walked, by `threads` at once."""

    window: ClassVar[int]
    threads: ClassVar[int]

    def scan(self) -> Scan: ...

    def tar(self, name: str) -> Tar:
        """Raises OSError if it is not there."""
        ...

    def open_tar(self, tar: Tar) -> AbstractContextManager[Pread]:
        """(offset, count) → bytes, for a walk over the headers; raises OSError."""
        ...

    def read_spans(self, spans: Sequence[Span]) -> list[bytes | str]:
        """The bytes of each span, or (a str) why they cannot be read; in the order of `spans`, read in offset order."""
        ...


def unread(reason: str) -> FileContent:
    """A file that could not be read."""
    return FileContent(b"", MISSING, 0, reason)


def too_large(size: int) -> str:
    """Why a file of `size` bytes is not read; empty if it is."""
    return f"too large: {size:,} bytes, the limit is {READ_LIMIT:,}" if size > READ_LIMIT else ""


def in_groups(sizes: Sequence[int]) -> Iterator[slice]:
    """Neighbours that are fetched together: at least one, then as many as memory and patience allow."""
    start = 0
    while start < len(sizes):
        stop, held = start, 0
        while stop < len(sizes) and (stop == start or (held < GROUP_BYTES and stop - start < GROUP_FILES)):
            held += max(sizes[stop], 0)
            stop += 1
        yield slice(start, stop)
        start = stop
