"""Rows of one split → rows of the store, with loading, encoding and writing side by side.

    loader ──(thread: copies each batch)──▶ encoder (this thread) ──(thread: digests, put, fail)──▶ SplitWriter

Queues hold two batches, so memory is bounded by the batch. Every row that is asked for is committed once, OK or FAILED
with a reason, unless `stop` asks to end early: then the batch in hand is finished and the rest stays pending.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from cleanctl.clip.encoder import Encoder
from cleanctl.clip.workers import InferenceWorkers, Pending
from cleanctl.embed.fingerprints import filled_in
from cleanctl.progress import Task
from cleanctl.records import DevicePixels, Fingerprints, ImageBatch, ImageLoader
from cleanctl.store import SplitWriter

AHEAD = 2  # batches in each queue
NON_FINITE = "the encoder gave non-finite values"


@dataclass(frozen=True, kw_only=True)
class _Loaded:
    """A batch whose pixels belong to us. `pixels` holds the readable images alone, in order."""

    row_B: np.ndarray
    ok_B: np.ndarray
    reason: dict[int, str]
    fingerprints: Fingerprints
    pixels: np.ndarray | DevicePixels


def embed_rows(
    row_N: np.ndarray,
    *,
    loader: ImageLoader,
    encoder: Encoder,
    writer: SplitWriter,
    before: Fingerprints,
    first_row: int = 0,
    on_committed: Callable[[int, dict[int, str]], None] = lambda tried, reasons: None,
    batch_size: int,
    stop: Callable[[], bool],
    task: Task,
) -> int:
    """Commits rows until all are done or `stop()` is true; returns how many.

    row_N: rows of the split, as the writer counts them. first_row: the one that the loader counts as 0. before: of the
    loader's rows, fingerprints of the files as they were before. on_committed: called off this thread with each batch's
    number of rows and those that failed (row → reason); it may raise to end the work. Errors of either thread are
    raised here, after what was encoded before them has been handed to the writer.
    """
    with encoder.workers() as workers:
        prefetch = _Prefetcher(_aligned_batches(loader, row_N, first_row, batch_size), first_row, workers)
        commit = _Committer(writer, before, first_row, on_committed, task)
        under_way: deque[tuple[_Loaded, Pending | None]] = deque()

        def commit_oldest() -> None:
            batch, pending = under_way.popleft()
            commit.take(batch, None if pending is None else pending.result())
            prefetch.give_back(batch.pixels)

        try:
            for batch in prefetch:
                under_way.append((batch, workers.submit(batch.pixels) if len(batch.pixels) else None))
                while len(under_way) > workers.ahead:
                    commit_oldest()
                if stop():
                    break
            while under_way:
                commit_oldest()
        finally:
            prefetch.close()
            commit.close()
    commit.raise_error()
    return commit.count


def _aligned_batches(loader: ImageLoader, row_N: np.ndarray, first_row: int, batch_size: int) -> Iterator[ImageBatch]:
    """The loader's batches, starting on multiples of the batch size where rows are dense.

    How a batch is composed decides the last bit of its embeddings. A killed run may leave behind the failed rows of
    the batch that it was committing; they come alone, so that all later batches are those of an uninterrupted run.
    """
    dense = len(row_N) and 2 * len(row_N) > row_N[-1] - row_N[0]
    head = int(np.searchsorted(row_N, -(-int(row_N[0]) // batch_size) * batch_size)) if dense else 0
    if head:
        yield from loader.batches(row_N[:head] - first_row, batch_size=batch_size)
    if head < len(row_N):
        yield from loader.batches(row_N[head:] - first_row, batch_size=batch_size)


class _Prefetcher:
    """Draws batches from a loader on a thread and copies them out of the loader's buffer.

    The first batch is drawn on the caller's thread, because loaders that fork workers must do so before anything
    else computes.
    """

    def __init__(self, batches: Iterator[ImageBatch], first_row: int, workers: InferenceWorkers) -> None:
        self._batches = batches
        self._first_row = first_row
        self._workers = workers
        self._full: queue.Queue[_Loaded | BaseException | None] = queue.Queue(AHEAD)
        self._free: queue.SimpleQueue[np.ndarray] = queue.SimpleQueue()
        self._closed = threading.Event()
        self._first = next(batches, None)
        self._thread = threading.Thread(target=self._run, name="cleanctl-prefetch", daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[_Loaded]:
        while (item := self._full.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item

    def give_back(self, pixels: np.ndarray | DevicePixels) -> None:
        """The encoder is done with these pixels: their memory may be used again."""
        if isinstance(pixels, np.ndarray):
            self._free.put(pixels.base if pixels.base is not None else pixels)

    def close(self) -> None:
        self._closed.set()
        while self._thread.is_alive():
            try:
                self._full.get(timeout=0.05)
            except queue.Empty:
                continue
        close = getattr(self._batches, "close", None)
        if close is not None:
            close()  # a generator's own end stops the loader's workers

    def _run(self) -> None:
        try:
            self._workers.prepare_thread()
            batch = self._first
            while batch is not None and not self._closed.is_set():
                self._full.put(self._own(batch))
                batch = next(self._batches, None)
        except BaseException as exc:  # noqa: BLE001 - handed to the thread that waits for it
            self._full.put(exc)
        else:
            self._full.put(None)

    def _own(self, batch: ImageBatch) -> _Loaded:
        return _Loaded(
            row_B=batch.row_B + self._first_row,
            ok_B=batch.ok_B.copy(),
            reason={row + self._first_row: why for row, why in batch.reason.items()},
            fingerprints=batch.fingerprints,
            pixels=self._copy(batch) if batch.on_device is None else batch.on_device,
        )

    def _copy(self, batch: ImageBatch) -> np.ndarray:
        count = int(np.count_nonzero(batch.ok_B))
        buffer = self._buffer(batch.pixel_BSSC)[:count]
        if count == len(batch.ok_B):
            np.copyto(buffer, batch.pixel_BSSC)
        elif count:
            np.compress(batch.ok_B, batch.pixel_BSSC, axis=0, out=buffer)
        return buffer

    def _buffer(self, like_BSSC: np.ndarray) -> np.ndarray:
        try:
            buffer = self._free.get_nowait()
        except queue.Empty:
            return np.empty_like(like_BSSC)
        return buffer if len(buffer) >= len(like_BSSC) else np.empty_like(like_BSSC)


class _Committer:
    """Waits for embeddings on the caller's thread, writes them on another."""

    def __init__(
        self,
        writer: SplitWriter,
        before: Fingerprints,
        first_row: int,
        on_committed: Callable[[int, dict[int, str]], None],
        task: Task,
    ) -> None:
        self.count = 0
        self._writer = writer
        self._before, self._first_row = before, first_row
        self._on_committed = on_committed
        self._task = task
        self._error: BaseException | None = None
        self._todo: queue.Queue[tuple[_Loaded, np.ndarray | None] | None] = queue.Queue(AHEAD)
        self._thread = threading.Thread(target=self._run, name="cleanctl-writer", daemon=True)
        self._thread.start()

    def take(self, batch: _Loaded, image_KD: np.ndarray | None) -> None:
        """Hands a batch over; raises what the writing thread met before. image_KD: None if no image was readable."""
        self._todo.put((batch, image_KD))
        self.raise_error()
        self._task.advance(len(batch.row_B))

    def close(self) -> None:
        """Waits until everything handed over is written."""
        self._todo.put(None)
        self._thread.join()

    def raise_error(self) -> None:
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        while (item := self._todo.get()) is not None:
            if self._error is not None:
                continue  # drain, so that nobody waits for room in the queue
            try:
                self._commit(*item)
            except BaseException as exc:  # noqa: BLE001 - raised on the caller's thread
                self._error = exc

    def _commit(self, batch: _Loaded, image_KD: np.ndarray | None) -> None:
        reasons: dict[int, str] = dict(batch.reason)
        fingerprints = filled_in(batch.fingerprints, self._before.at(batch.row_B - self._first_row))
        at_K = np.flatnonzero(batch.ok_B)
        if image_KD is not None:
            finite_K = np.isfinite(image_KD).all(axis=1)
            reasons.update((int(row), NON_FINITE) for row in batch.row_B[at_K[~finite_K]])
            at_K, image_KD = at_K[finite_K], image_KD[finite_K]
        if len(at_K):  # before the failures: see _aligned_batches
            assert image_KD is not None
            self._writer.put(batch.row_B[at_K], image_KD, fingerprints.at(at_K))
        if reasons:
            at_F = np.setdiff1d(np.arange(len(batch.row_B)), at_K)
            row_F = batch.row_B[at_F]
            self._writer.fail(row_F, [reasons[row] for row in row_F.tolist()], fingerprints.at(at_F))
        assert len(at_K) + len(reasons) == len(batch.row_B), "every row ends ok or failed"
        self.count += len(batch.row_B)
        self._on_committed(len(batch.row_B), reasons)


def batch_size_for(wanted: int | None, *, size: int, device: str) -> int:
    """Images encoded at a time: a power of two, so that batches and the store's blocks end together.

    On CUDA 1,024 where nothing is asked for, so that launches and hand-offs weigh little; 256 of more than 256 px,
    which take as much memory. On a CPU enough for full speed, few enough to stay in its caches and to stop soon.
    Measured on two cores: 64 at 64 px (batches of 256 are 10–25 % slower), flat from 8 to 64 at 224 px.
    """
    if wanted is None:
        wanted = 1024 if device == "cuda" and size <= 256 else 256
    if device == "cpu":
        wanted = min(wanted, max(16, 2**18 // size**2))
    return 1 << (wanted.bit_length() - 1)
