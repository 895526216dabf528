"""The loader that needs nothing beyond torch and Pillow: worker processes of a torch DataLoader read and decode images.

In: rows. Out: ImageBatch, in the order asked for. It is the reference for the FFCV loader, and what a machine without
FFCV uses. Nothing is written.

- A worker is handed the keys of one batch and hands back one uint8 array, so that the main process does no work per
  image. Arrays travel through pipes: torch's shared memory is 64 MB in a default container and ends in a bus error.
- A worker that dies (a decoder's crash, the kernel short of memory) costs no batch: the batches from the one it owed
  on are asked of fresh workers; if the same batch kills again, its images are decoded one by one, each in a process
  of its own, and the one that kills is a failed row.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, NamedTuple

import numpy as np

from cleanctl.files.fingerprints import no_fingerprints, put_fingerprint, put_fingerprints
from cleanctl.images.crop import to_crop
from cleanctl.images.decode import UnreadableImage, decode_pixels, decode_rgb
from cleanctl.images.geometry import Crop, draws_of
from cleanctl.progress import SILENT, Progress
from cleanctl.records import FileContent, Fingerprints, ImageBatch, PixelSpec, Storage
from cleanctl.runtime import cpu_count

BATCHES_AHEAD = 2  # of each worker
PARENT_SECONDS = 1.0  # between looks of a worker at whether its parent lives


class _Task(NamedTuple):
    """One batch to decode: its keys, and a draw for each where crops are random."""

    keys: list[str]
    draw_B: np.ndarray | None


class _Decoded(NamedTuple):
    pixel_BSSC: np.ndarray
    failed: dict[int, str]
    fingerprints: Fingerprints


class _WorkerDied(Exception):
    pass


class TorchLoader:
    """An ImageLoader over files; `workers=0` decodes in this process."""

    name = "torch"

    def __init__(
        self,
        *,
        files: Storage,
        keys: Sequence[str],
        spec: PixelSpec,
        crop: Crop | None = None,
        workers: int | None = None,
        progress: Progress = SILENT,
    ) -> None:
        self.spec = spec
        self.crop = crop
        self.workers = cpu_count() if workers is None else workers
        self._files = files
        self._keys = keys
        self._progress = progress

    def batches(self, row_N: np.ndarray, *, batch_size: int, seed: int = 0, done: int = 0) -> Iterator[ImageBatch]:
        """Every row of `row_N` (repetitions allowed) once, in that order; `seed` fixes random crops."""
        row_N = np.asarray(row_N, dtype=np.int64)
        starts = range(0, len(row_N), batch_size)
        draw_N = None if self.crop is None else draws_of(len(row_N), seed, done)

        def tasks(first: int) -> Iterator[_Task]:
            for start in starts[first:]:
                part = slice(start, start + batch_size)
                keys = [self._keys[row] for row in row_N[part].tolist()]
                yield _Task(keys, None if draw_N is None else draw_N[part])

        for start, decoded in zip(starts, self._all(tasks, len(starts))):
            row_B = row_N[start : start + batch_size]
            yield _as_batch(row_B, decoded)

    def close(self) -> None:
        pass  # workers live as long as one pass

    def _all(self, tasks: Any, count: int) -> Iterator[_Decoded]:
        """The decoded tasks in order, whatever happens to workers."""
        done, last_death = 0, -1
        while done < count:
            try:
                for decoded in self._pass(tasks(done)):
                    yield decoded
                    done += 1
            except _WorkerDied as exc:
                self._progress.warn(f"{exc} The batches it owed are read again.")
                if last_death == done:
                    yield self._one_by_one(next(tasks(done)))
                    done += 1
                last_death = done

    def _pass(self, tasks: Iterator[_Task]) -> Iterator[_Decoded]:
        if self.workers == 0:
            yield from map(self._decoder(), tasks)
            return
        iterator = self._start_workers(list(tasks))
        try:
            while True:
                try:
                    decoded = next(iterator)
                except StopIteration:
                    return
                except RuntimeError as exc:
                    if "DataLoader worker" not in str(exc):
                        raise
                    raise _WorkerDied(f"A loader's worker process died: {exc}.") from exc
                yield decoded
        finally:
            # Only this ends the workers when a consumer stops early.
            del iterator

    def _start_workers(self, tasks: list[_Task]) -> Iterator[_Decoded]:
        import torchvision.io  # noqa: F401 - takes a second, once here instead of in each worker
        from torch.utils.data import DataLoader

        loader: Any = DataLoader(
            self._decoder(),  # type: ignore[arg-type]
            sampler=tasks,
            batch_size=None,
            num_workers=min(self.workers, max(1, len(tasks))),
            collate_fn=_as_is,
            prefetch_factor=BATCHES_AHEAD,
            worker_init_fn=_init_worker,
            multiprocessing_context=_context(),
        )
        # torch's handler raises in whatever the main thread is doing when a worker dies, which may be the encoder or
        # a write. The death is noticed all the same, by the next batch that does not come.
        try:
            before = signal.getsignal(signal.SIGCHLD)
            iterator = iter(loader)
            signal.signal(signal.SIGCHLD, before)
        except ValueError:  # not the main thread, where torch sets no handler
            iterator = iter(loader)
        return iterator

    def _one_by_one(self, task: _Task) -> _Decoded:
        whole = _nothing(len(task.keys), self.spec)
        for index, key in enumerate(task.keys):
            single = _Task([key], None if task.draw_B is None else task.draw_B[index : index + 1])
            with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context(_context())) as pool:
                try:
                    one = pool.submit(self._decoder(), single).result()
                except BrokenProcessPool:
                    whole.failed[index] = "decoding it killed the worker process"
                    continue
            whole.pixel_BSSC[index] = one.pixel_BSSC[0]
            put_fingerprints(whole.fingerprints, np.array([index]), one.fingerprints)
            if one.failed:
                whole.failed[index] = one.failed[0]
        return whole

    def _decoder(self) -> _TaskDecoder:
        return _TaskDecoder(self._files, self.spec, self.crop)


class _TaskDecoder:
    """The DataLoader's dataset: its index is the task itself."""

    def __init__(self, files: Storage, spec: PixelSpec, crop: Crop | None) -> None:
        self.files = files
        self.spec = spec
        self.crop = crop
        self.in_worker = False

    def __getitem__(self, task: _Task) -> _Decoded:
        decoded = _nothing(len(task.keys), self.spec)
        for index, content in enumerate(self.files.read(task.keys)):
            try:
                decoded.pixel_BSSC[index] = self._crop(content, task, index)
            except UnreadableImage as exc:
                decoded.failed[index] = exc.reason
            if not content.reason:
                put_fingerprint(decoded.fingerprints, index, content)
        return decoded

    __call__ = __getitem__

    def _crop(self, content: FileContent, task: _Task, index: int) -> np.ndarray:
        if content.reason:
            raise UnreadableImage(content.reason)
        draw = 0 if task.draw_B is None else int(task.draw_B[index])
        pixel_HWC = decode_pixels(content.data) if self.in_worker else np.array(decode_rgb(content.data))
        return to_crop(pixel_HWC, self.spec, self.crop, draw)


def _nothing(count: int, spec: PixelSpec) -> _Decoded:
    return _Decoded(np.zeros((count, spec.size, spec.size, 3), dtype=np.uint8), {}, no_fingerprints(count))


def _as_batch(row_B: np.ndarray, decoded: _Decoded) -> ImageBatch:
    ok_B = np.ones(len(row_B), dtype=bool)
    ok_B[list(decoded.failed)] = False
    reason = {int(row_B[index]): why for index, why in decoded.failed.items()}
    return ImageBatch(
        row_B=row_B, pixel_BSSC=decoded.pixel_BSSC, ok_B=ok_B, reason=reason, fingerprints=decoded.fingerprints
    )


def _as_is(decoded: Any) -> Any:
    return decoded


def _context() -> str:
    # Forked workers start at once and need no importable main module; where there is no fork, spawn.
    return "fork" if "fork" in multiprocessing.get_all_start_methods() else "spawn"


def _end_with_parent() -> None:
    """torch's worker looks for its parent, too, but then waits for good to hand over a batch that is larger than a
    pipe, if the parent was killed while it did not take it."""
    parent = multiprocessing.parent_process()
    while parent is not None and os.getppid() == parent.pid:
        time.sleep(PARENT_SECONDS)
    os._exit(1)


def _init_worker(worker: int) -> None:
    from torch.utils.data import get_worker_info

    # A forked worker inherits the run's own handlers, which would turn "end" into "finish the shard in hand".
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    # What libjpeg thinks of damaged files would fill the screen; what matters of it ends up in a reason.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    threading.Thread(target=_end_with_parent, name="cleanctl-parent", daemon=True).start()
    info = get_worker_info()
    assert info is not None
    info.dataset.in_worker = True  # type: ignore[attr-defined]
