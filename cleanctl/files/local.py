"""`LocalStorage`: a folder of this machine. Its files are read whole, its tars in spans."""

from __future__ import annotations

import errno
import os
import stat as modes
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from cleanctl.files.fingerprints import no_fingerprints
from cleanctl.files.listing import Scan, find_images
from cleanctl.files.storage import CHANGED, Span, Tar, too_large, unread
from cleanctl.files.tar_headers import Pread
from cleanctl.records import FileContent, Fingerprints

# Without O_NONBLOCK the opening of a FIFO waits for a writer, perhaps for ever.
_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


@dataclass(frozen=True)
class LocalStorage:
    """Keys are paths relative to `location`."""

    location: str
    window: ClassVar[int] = 1 << 13  # a page or two: the image's neighbours' headers, and not the next image
    threads: ClassVar[int] = 1

    @classmethod
    def of(cls, root: Path | str) -> LocalStorage:
        return cls(os.path.abspath(root))

    def scan(self) -> Scan:
        return find_images(self.location)

    def stat(self, keys: Sequence[str]) -> Fingerprints:
        fingerprints = no_fingerprints(len(keys))
        for row, key in enumerate(keys):
            try:
                stat = os.stat(self._path(key))
            except (OSError, ValueError):  # ValueError: a NUL byte in the path
                continue
            fingerprints.size_N[row], fingerprints.mtime_ns_N[row] = stat.st_size, stat.st_mtime_ns
        return fingerprints

    def read(self, keys: Sequence[str]) -> Iterator[FileContent]:
        return (read_file(self._path(key)) for key in keys)

    def head(self, key: str, count: int) -> bytes:
        try:
            with _opened(self._path(key)) as (handle, _):
                return os.read(handle, count)
        except (OSError, ValueError):
            return b""

    def tar(self, name: str) -> Tar:
        stat = os.stat(self._path(name))
        return Tar(name, stat.st_size, stat.st_mtime_ns)

    @contextmanager
    def open_tar(self, tar: Tar) -> Iterator[Pread]:
        with _opened(self._path(tar.name)) as (handle, _):
            yield lambda offset, count: os.pread(handle, count, offset)

    def read_spans(self, spans: Sequence[Span]) -> list[bytes | str]:
        out: list[bytes | str] = [""] * len(spans)
        by_tar: dict[Tar, list[int]] = {}
        for index, span in enumerate(spans):
            by_tar.setdefault(span.tar, []).append(index)
        for tar, indices in by_tar.items():
            indices.sort(key=lambda index: spans[index].start)
            for index, data in zip(indices, self._read(tar, [spans[index] for index in indices])):
                out[index] = data
        return out

    def _read(self, tar: Tar, spans: list[Span]) -> list[bytes | str]:
        try:
            with _opened(self._path(tar.name)) as (handle, stat):
                if (stat.st_size, stat.st_mtime_ns) != (tar.size, tar.mtime_ns):
                    return [CHANGED] * len(spans)
                return [_pread(handle, span) for span in spans]
        except OSError as exc:
            return [f"{tar.name}: {reason_of(exc)}"] * len(spans)

    def _path(self, key: str) -> str:
        return f"{self.location}/{key}"


def read_file(path: str) -> FileContent:
    """Bytes and state of the same open file: one that is replaced meanwhile gives no mixture."""
    try:
        with _opened(path) as (handle, stat):
            size = stat.st_size
            if reason := too_large(size):
                return unread(reason)
            data = os.read(handle, size + 1)  # one more than it has: a file that grew is told from one that is whole
            while 0 < len(data) < size and (more := os.read(handle, size - len(data))):
                data += more
            return FileContent(data, size, stat.st_mtime_ns) if len(data) == size else unread(CHANGED)
    except (OSError, ValueError) as exc:
        return unread(reason_of(exc))


def reason_of(exc: OSError | ValueError) -> str:
    if isinstance(exc, (FileNotFoundError, NotADirectoryError)):
        return "file not found"
    if isinstance(exc, PermissionError):
        return "no permission to read the file"
    if isinstance(exc, IsADirectoryError):
        return "a folder, not a file"
    if isinstance(exc, ValueError):
        return f"no path: {exc}"
    if exc.errno == errno.ENXIO:  # what opening a socket gives
        return "not a regular file"
    return f"the file cannot be read: {exc.strerror or exc}"


@contextmanager
def _opened(path: str) -> Iterator[tuple[int, os.stat_result]]:
    """A regular file's handle and state; OSError for a folder, FIFO, socket or device, without waiting for one."""
    handle = os.open(path, _FLAGS)
    try:
        stat = os.fstat(handle)
        if modes.S_ISDIR(stat.st_mode):
            raise IsADirectoryError(path)
        if not modes.S_ISREG(stat.st_mode):
            raise OSError(errno.ENXIO, "not a regular file", path)
        yield handle, stat
    finally:
        os.close(handle)


def _pread(handle: int, span: Span) -> bytes | str:
    data = os.pread(handle, span.size, span.start)
    while 0 < len(data) < span.size:  # a read stops at 2 GiB, or at a signal
        more = os.pread(handle, span.size - len(data), span.start + len(data))
        if not more:
            break
        data += more
    return data if len(data) == span.size else CHANGED
