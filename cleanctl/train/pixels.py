"""The training images as bytes, held where there is room for them: GPU memory, main memory, or read anew every epoch.

In: a SeededLoader (images/loaders.py) and the rows to hold. Out: batches of uint8 (B, L, L, 3) on the training device.
Positions are 0…M-1 into `row_M`, the readable rows of the split. Nothing is left on disk.

A set is kept in GPU memory if it takes at most GPU_SHARE of what is free there, else in main memory if at most
RAM_SHARE of what is available; else each epoch reads it from the loader, in the epoch's own order. What is not on the
GPU is read ahead and copied there from pinned memory.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from cleanctl.errors import InputError, UsageError
from cleanctl.images.loaders import SeededLoader
from cleanctl.progress import Progress
from cleanctl.runtime import StopFlag
from cleanctl.train.transfer import TOGETHER, ahead, send_each

GPU_SHARE = 0.4
RAM_SHARE = 0.5
READ_BATCH = 256


class Stopped(Exception):
    """A stop was asked for; the state is whole."""


class Pixels(Protocol):
    """`ok_M` says which positions could be read; of a streamed set all are believed to be."""

    ok_M: np.ndarray

    def batches(
        self, position: Sequence[np.ndarray], *, seed: int = 0, done: int = 0
    ) -> Generator[tuple[np.ndarray, Tensor], None, None]:
        """For each array of positions: which could be read (bool), and their images (B, L, L, 3) on the device.

        Random crops, where they are made in reading, depend on the seed and on the place in the epoch, of which `done`
        places are over.
        """
        ...


@dataclass
class HeldPixels:
    """The whole set in one tensor, on the GPU or in main memory."""

    pixel_MLLC: Tensor
    ok_M: np.ndarray
    device: str

    def batches(
        self, position: Sequence[np.ndarray], *, seed: int = 0, done: int = 0
    ) -> Generator[tuple[np.ndarray, Tensor], None, None]:
        if self.pixel_MLLC.device.type == "cpu" and self.device == "cuda":
            found = ((ok_B, self.pixel_MLLC[torch.from_numpy(wanted[ok_B])]) for wanted, ok_B in self._ok(position))
            yield from _onto_gpu(found, self.device)
            return
        for start in range(0, len(position), TOGETHER):
            some = list(self._ok(position[start : start + TOGETHER]))
            at = send_each([wanted[ok_B] for wanted, ok_B in some], self.pixel_MLLC.device)
            for (_, ok_B), at_B in zip(some, at):
                yield ok_B, self.pixel_MLLC.index_select(0, at_B)

    def _ok(self, position: Sequence[np.ndarray]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        return ((wanted, self.ok_M[wanted]) for wanted in position)


@dataclass
class StreamedPixels:
    """Read from the loader whenever they are asked for; positions that failed gather in `unreadable`."""

    loader: SeededLoader
    row_M: np.ndarray
    ok_M: np.ndarray
    device: str
    unreadable: set[int] = field(default_factory=set)

    def batches(
        self, position: Sequence[np.ndarray], *, seed: int = 0, done: int = 0
    ) -> Generator[tuple[np.ndarray, Tensor], None, None]:
        read = self._read(position, seed, done)
        return _onto_gpu(read, self.device) if self.device == "cuda" else read

    def _read(
        self, position: Sequence[np.ndarray], seed: int, done: int
    ) -> Generator[tuple[np.ndarray, Tensor], None, None]:
        for run in _equal_runs(position):
            wanted = np.concatenate(run)
            at = 0
            for batch in self.loader.batches(self.row_M[wanted], batch_size=len(run[0]), seed=seed, done=done):
                here = wanted[at : at + len(batch.row_B)]
                at += len(here)
                self.unreadable.update(here[~batch.ok_B].tolist())
                pixel = batch.pixel_BSSC if batch.ok_B.all() else batch.pixel_BSSC[batch.ok_B]
                # The loader writes its next batch into the same buffer: take a copy before it does.
                yield batch.ok_B.copy(), torch.from_numpy(np.array(pixel))
            done += len(wanted)


def _onto_gpu(
    batches: Iterator[tuple[np.ndarray, Tensor]], device: str
) -> Generator[tuple[np.ndarray, Tensor], None, None]:
    """A thread reads the next batches into pinned memory while the GPU computes, which waits for no copy."""
    for ok_B, pixel in ahead(_pinned(batches, torch.cuda.current_device())):
        yield ok_B, pixel.to(device, non_blocking=True)


def _pinned(batches: Iterator[tuple[np.ndarray, Tensor]], gpu: int) -> Iterator[tuple[np.ndarray, Tensor]]:
    torch.cuda.set_device(gpu)  # it belongs to a thread, and pinned memory to a GPU
    for ok_B, pixel in batches:
        yield ok_B, pixel.pin_memory()


def _equal_runs(position: Sequence[np.ndarray]) -> Iterator[list[np.ndarray]]:
    """Batches grouped so that one call of the loader, which has one batch size, gives them with their own sizes."""
    run: list[np.ndarray] = []
    for batch in position:
        if run and (len(batch) > len(run[0]) or len(run[-1]) < len(run[0])):
            yield run
            run = []
        run.append(batch)
    if run:
        yield run


@dataclass(frozen=True, kw_only=True)
class Placement:
    """where: "gpu", "ram" or "none"."""

    where: str
    reason: str


def place(count: int, side: int, *, device: str, wanted: str) -> Placement:
    """Where `count` images of `side` pixels are kept. wanted: "auto" or a place; raises UsageError for gpu on a CPU."""
    need = count * side * side * 3
    if wanted == "gpu" and device != "cuda":
        raise UsageError("--cache gpu was asked for, and the run is on a CPU.", do="Use --cache ram or auto.")
    if wanted != "auto":
        return Placement(where=wanted, reason="asked for")
    size = f"{need / 2**20:,.0f} MiB as bytes"
    if device == "cuda" and need <= GPU_SHARE * (free := torch.cuda.mem_get_info()[0]):
        return Placement(where="gpu", reason=f"{size}, within {GPU_SHARE:.0%} of {free / 2**30:.1f} GiB free there")
    available = available_memory()
    if need <= RAM_SHARE * available:
        return Placement(where="ram", reason=f"{size}, within {RAM_SHARE:.0%} of {available / 2**30:.1f} GiB")
    return Placement(where="none", reason=f"{size} do not fit in {RAM_SHARE:.0%} of {available / 2**30:.1f} GiB")


def available_memory() -> int:
    """Bytes that new processes may take: the kernel's MemAvailable, cut by a container's limit; 4 GiB if unknown."""
    room = 4 * 2**30
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                room = int(line.split()[1]) * 1024
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
        used = int(Path("/sys/fs/cgroup/memory.current").read_text())
        return room if limit == "max" else min(room, max(int(limit) - used, 0))
    except (OSError, ValueError):
        return room


def open_pixels(
    loader: SeededLoader,
    row_M: np.ndarray,
    *,
    side: int,
    device: str,
    cache: str,
    title: str,
    progress: Progress,
    stop: StopFlag,
) -> Pixels:
    """The images of `row_M`, held or streamed as `place` decides; says which, and warns of images it could not read."""
    placement = place(len(row_M), side, device=device, wanted=cache)
    if placement.where == "none":
        progress.note(f"{title}: read by the {loader.name} loader every epoch ({placement.reason}).")
        return StreamedPixels(loader, row_M, np.ones(len(row_M), bool), device)
    kept_on = "the GPU" if placement.where == "gpu" else "main memory"
    progress.note(f"{title}: read once by the {loader.name} loader and kept in {kept_on} ({placement.reason}).")
    target = torch.empty(
        (len(row_M), side, side, 3), dtype=torch.uint8, device="cuda" if placement.where == "gpu" else "cpu"
    )
    ok_M = np.zeros(len(row_M), bool)
    first_reason = ""
    with progress.track(f"Reading {title.lower()}", total=len(row_M), unit="images") as task:
        at = 0
        for batch in loader.batches(row_M, batch_size=READ_BATCH):
            end = at + len(batch.row_B)
            target[at:end] = torch.from_numpy(batch.pixel_BSSC)
            ok_M[at:end] = batch.ok_B
            first_reason = first_reason or next(iter(batch.reason.values()), "")
            task.advance(end - at)
            at = end
            if stop:
                raise Stopped
    if not ok_M.any():
        raise InputError(
            f"None of the {len(row_M):,} images can be read any more: {first_reason}.",
            do="Check that SOURCE is where it was when the store was made, or run embed again.",
        )
    if not ok_M.all():
        progress.warn(
            f"{title}: {(~ok_M).sum():,} images could be read by embed and cannot now ({first_reason}); left out."
        )
    return HeldPixels(target, ok_M, device)
