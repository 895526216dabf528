"""Fingerprints: what tells whether a file has changed since it was read.

A fingerprint is size, modification time and BLAKE2b-128 digest of the content. Size and time are asked of the storage
first; a digest is made only where they differ from what is known.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from cleanctl.progress import SILENT, Progress
from cleanctl.records import FileContent, Fingerprints, Storage

DIGEST_BYTES = 16
MISSING = -1  # as a size
_CHUNK = 64
_CHUNK_BYTES = 1 << 23
_THREADS = 8


def no_fingerprints(count: int) -> Fingerprints:
    """Fingerprints of files that could not be read: zero digests, size -1."""
    return Fingerprints(
        digest_N16=np.zeros((count, DIGEST_BYTES), dtype=np.uint8),
        size_N=np.full(count, MISSING, dtype=np.int64),
        mtime_ns_N=np.zeros(count, dtype=np.int64),
    )


def put_fingerprint(fingerprints: Fingerprints, row: int, content: FileContent) -> None:
    """Notes what was read for one row."""
    fingerprints.digest_N16[row] = np.frombuffer(digest_of(content.data), dtype=np.uint8)
    fingerprints.size_N[row], fingerprints.mtime_ns_N[row] = content.size, content.mtime_ns


def put_fingerprints(fingerprints: Fingerprints, row_B: np.ndarray | slice, of_B: Fingerprints) -> None:
    fingerprints.digest_N16[row_B] = of_B.digest_N16
    fingerprints.size_N[row_B], fingerprints.mtime_ns_N[row_B] = of_B.size_N, of_B.mtime_ns_N


def same_file(now: Fingerprints, known: Fingerprints) -> np.ndarray:
    """bool (N,): the file is there, and its size and modification time are the known ones."""
    return (now.size_N == known.size_N) & (now.mtime_ns_N == known.mtime_ns_N) & (now.size_N != MISSING)


def same_content(now: Fingerprints, known: Fingerprints) -> np.ndarray:
    """bool (N,): the file could be read, and its digest is the known one."""
    return (now.digest_N16 == known.digest_N16).all(axis=1) & now.digest_N16.any(axis=1)


def digest_of(data: bytes | memoryview) -> bytes:
    return hashlib.blake2b(data, digest_size=DIGEST_BYTES).digest()


def fingerprint_files(
    files: Storage,
    keys: Sequence[str],
    *,
    known: Fingerprints | None = None,
    progress: Progress = SILENT,
) -> Fingerprints:
    """Fingerprints of `keys`, in order; rows whose size and time agree with `known` keep its digest unread."""
    fingerprints = files.stat(keys)
    unread_N = fingerprints.size_N != MISSING
    if known is not None:
        same_N = same_file(fingerprints, known)
        fingerprints.digest_N16[same_N] = known.digest_N16[same_N]
        unread_N &= ~same_N
    todo = np.flatnonzero(unread_N)
    if not len(todo):
        return fingerprints

    def digests(rows: np.ndarray) -> list[bytes]:
        contents = files.read([keys[row] for row in rows.tolist()])
        return [bytes(DIGEST_BYTES) if content.reason else digest_of(content.data) for content in contents]

    with progress.track("checksums", total=len(todo), unit="files") as task:
        for rows, done in in_chunks(digests, todo):
            fingerprints.digest_N16[rows] = np.frombuffer(b"".join(done), dtype=np.uint8).reshape(-1, DIGEST_BYTES)
            task.advance(len(rows))
    return fingerprints


def in_chunks(
    work: Callable[[np.ndarray], list], rows: np.ndarray, *, threads: int = _THREADS, bytes_each: float = 0
) -> Iterator[tuple[Any, list]]:
    """(rows, `work` of them) chunk by chunk, in order. A few threads hide the latency of a slow file system; only
    a few chunks are under way at a time, so that results do not pile up before a slow consumer. bytes_each: how large
    the result of a row is; chunks of large ones are short."""
    step = max(1, min(_CHUNK, int(_CHUNK_BYTES / max(bytes_each, 1))))
    chunks = deque(rows[start : start + step] for start in range(0, len(rows), step))
    running: deque[tuple[np.ndarray, Future[list]]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            while chunks or running:
                while chunks and len(running) < 2 * threads:
                    chunk = chunks.popleft()
                    running.append((chunk, pool.submit(work, chunk)))
                chunk, future = running.popleft()
                yield chunk, future.result()
        finally:
            for _, future in running:
                future.cancel()
