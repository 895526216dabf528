"""Reading whole files, and the stamp that tells whether one has changed since.

A stamp is size, modification time and BLAKE2b-128 digest of the content. Size and time are asked of the file system
first; a digest is made only where they differ from what is known.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cleanctl.data.decode import UnreadableImage
from cleanctl.progress import SILENT, Progress

DIGEST_BYTES = 16
MISSING = -1  # as a size
_CHUNK = 256
_THREADS = 8


@dataclass(frozen=True, kw_only=True)
class FileStamps:
    """A row a file. digest: V16 (N,), zeros where the file cannot be read. size: int64, -1 there. mtime_ns: int64."""

    digest: np.ndarray
    size: np.ndarray
    mtime_ns: np.ndarray

    @classmethod
    def empty(cls, count: int) -> FileStamps:
        return cls(
            digest=np.zeros(count, dtype=f"V{DIGEST_BYTES}"),
            size=np.full(count, MISSING, dtype=np.int64),
            mtime_ns=np.zeros(count, dtype=np.int64),
        )

    def same_file(self, other: FileStamps) -> np.ndarray:
        """bool (N,): size and modification time agree, and the file was readable."""
        return (self.size == other.size) & (self.mtime_ns == other.mtime_ns) & (self.size != MISSING)

    def same_content(self, other: FileStamps) -> np.ndarray:
        """bool (N,): both could be read, and their digests agree."""
        return (self.size == other.size) & (self.size != MISSING) & (self.digest == other.digest)


def read_bytes(path: str) -> bytes:
    """The file's bytes. Raises UnreadableImage with a reason a person understands."""
    return read_with_stat(path)[0]


def read_with_stat(path: str) -> tuple[bytes, os.stat_result]:
    """The bytes and the state of the same open file: one that is replaced meanwhile gives no mixture."""
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        try:
            stat = os.fstat(handle)
            parts = [os.read(handle, stat.st_size + 1)]
            while len(parts[-1]) and sum(map(len, parts)) < stat.st_size:
                parts.append(os.read(handle, stat.st_size))
            return b"".join(parts) if len(parts) > 1 else parts[0], stat
        finally:
            os.close(handle)
    except OSError as exc:
        raise UnreadableImage(reason_of(exc)) from exc


def reason_of(exc: OSError) -> str:
    if isinstance(exc, (FileNotFoundError, NotADirectoryError)):
        return "file not found"
    if isinstance(exc, PermissionError):
        return "no permission to read the file"
    if isinstance(exc, IsADirectoryError):
        return "a folder, not a file"
    return f"the file cannot be read: {exc.strerror or exc}"


def digest_of(data: bytes | memoryview) -> bytes:
    return hashlib.blake2b(data, digest_size=DIGEST_BYTES).digest()


def stamp_files(
    root: Path,
    keys: Sequence[str],
    *,
    known: FileStamps | None = None,
    progress: Progress = SILENT,
) -> FileStamps:
    """Stamps of `keys`, in order; rows whose size and time agree with `known` (same order) keep its digest unread."""
    stamps = _stat_files(root, keys)
    todo = np.flatnonzero(stamps.size != MISSING)
    if known is not None:
        same = stamps.same_file(known)
        stamps.digest[same] = known.digest[same]
        todo = np.flatnonzero((stamps.size != MISSING) & ~same)
    if not len(todo):
        return stamps
    with progress.track("checksums", total=len(todo), unit="files") as task:
        for rows, digests in _in_chunks(lambda row: _digest_file(root, keys[row]), todo):
            stamps.digest[rows] = np.frombuffer(b"".join(digests), dtype=stamps.digest.dtype)
            task.advance(len(rows))
    return stamps


def _stat_files(root: Path, keys: Sequence[str]) -> FileStamps:
    stamps = FileStamps.empty(len(keys))
    prefix = os.fspath(root)
    for row, key in enumerate(keys):
        try:
            stat = os.stat(f"{prefix}/{key}")
        except OSError:
            continue
        stamps.size[row], stamps.mtime_ns[row] = stat.st_size, stat.st_mtime_ns
    return stamps


def _digest_file(root: Path, key: str) -> bytes:
    try:
        return digest_of(read_bytes(f"{root}/{key}"))
    except UnreadableImage:
        return bytes(DIGEST_BYTES)


def _in_chunks(work, rows: np.ndarray) -> Iterator[tuple[np.ndarray, list]]:  # type: ignore[no-untyped-def]
    """(rows, results) chunk by chunk in order; a few threads hide the latency of a slow file system."""
    chunks = [rows[start : start + _CHUNK] for start in range(0, len(rows), _CHUNK)]
    with ThreadPoolExecutor(_THREADS) as pool:
        yield from zip(chunks, pool.map(lambda chunk: [work(row) for row in chunk], chunks))
