"""Embeddings tile by tile as float32 arrays on the device that scores them, checked once.

In: EmbeddingBlocks (float16, N × D, re-iterable). Out: (rows, array) in order, or what a function makes of each, on a
CPU several at a time. Arrays are numpy's on a CPU, else torch's (`cleanctl_kernels.arrays`). `Float32Blocks` reads the
next block while the last one is worked on, and keeps as many blocks (in float16) as a fixed budget holds, so that
further passes over a small split read nothing and memory still does not grow with N. Leaves nothing on disk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol, TypeVar, runtime_checkable

import numpy as np
from cleanctl_kernels.arrays import Array, namespace, namespace_on, to_numpy
from cleanctl_kernels.threads import in_threads

from cleanctl.errors import InputError
from cleanctl.records import ClassPosterior, EmbeddingBlocks
from cleanctl.score.upload import uploaded

if TYPE_CHECKING:
    from cleanctl_kernels import ClassStats

Done = TypeVar("Done")
Part = tuple[slice, Array]

CACHE_BYTES = 256 << 20
BLOCK_ROWS = {"cpu": 4_096, "cuda": 65_536}
TILE_BYTES = {"cpu": 4 << 20, "cuda": 256 << 20}  # of what is worked on at once, by each thread
NAMED_ROWS = 5  # how many offending rows an error lists


@dataclass(frozen=True, kw_only=True)
class ArrayBlocks:
    """EmbeddingBlocks over an array in memory."""

    image_ND: np.ndarray
    block_rows: int = 65_536

    @property
    def num_rows(self) -> int:
        return int(self.image_ND.shape[0])

    @property
    def dim(self) -> int:
        return int(self.image_ND.shape[1])

    def __iter__(self) -> Iterator[tuple[slice, np.ndarray]]:
        for start in range(0, self.num_rows, self.block_rows):
            rows = slice(start, min(start + self.block_rows, self.num_rows))
            yield rows, self.image_ND[rows]


@runtime_checkable
class Skipping(Protocol):
    """EmbeddingBlocks that can leave blocks unread."""

    def within(self, part: slice) -> Iterator[tuple[slice, np.ndarray]]:
        """The blocks that hold rows of `part`, whole, numbered as all of them are."""
        ...


@dataclass(frozen=True, kw_only=True)
class PartBlocks:
    """EmbeddingBlocks of some neighbouring rows of others, numbered from 0."""

    blocks: EmbeddingBlocks
    part: slice

    @property
    def num_rows(self) -> int:
        return int(self.part.stop - self.part.start)

    @property
    def dim(self) -> int:
        return self.blocks.dim

    def __iter__(self) -> Iterator[tuple[slice, np.ndarray]]:
        first = self.part.start
        for rows, image_BD in self.blocks.within(self.part) if isinstance(self.blocks, Skipping) else self.blocks:
            start, stop = max(rows.start, first), min(rows.stop, self.part.stop)
            if start < stop:
                yield slice(start - first, stop - first), image_BD[start - rows.start : stop - rows.start]


class Float32Blocks:
    """Tiles of at most BLOCK_ROWS rows in float32 on `device`; the first pass refuses rows that are not finite.

    An array is valid until the next one is asked for: all of a pass lie in one buffer. Writing float32 into memory
    that is there costs a twentieth of what fresh memory does, which the system has to hand out page by page.
    """

    def __init__(self, blocks: EmbeddingBlocks, *, device: str = "cpu", cache_bytes: int | None = None) -> None:
        """device: `cpu` (numpy), `cuda`, or `cpu:0`, torch's own CPU. cache_bytes: None is CACHE_BYTES, on CUDA half of
        the device memory that is free."""
        self.num_rows, self.dim, self.device = blocks.num_rows, blocks.dim, device
        self.namespace = namespace_on(device)
        self._blocks = blocks
        self.first = blocks.part.start if isinstance(blocks, PartBlocks) else 0  # number of the first row among all
        self._budget = _cache_bytes(device) if cache_bytes is None else cache_bytes
        self._kind = device.partition(":")[0]
        self._kept: list[Part] = []
        self._spare: list[Array] = []  # buffers between passes; passes may be nested, each thread of each has its own
        self._checked = False

    def __iter__(self) -> Iterator[Part]:
        buffer = self._buffer()
        try:
            for rows, stored in self._cut(BLOCK_ROWS[self._kind]):
                yield rows, self._widened(rows, stored, buffer)
            self._checked = True
        finally:
            self._spare.append(buffer)

    def map(self, work: Callable[[slice, Array], Done], *, row_bytes: int = 0, stored: bool = False) -> Iterator[Done]:
        """work(rows, image) of each tile, in the order of the rows: one pass. On a CPU several threads work on tiles,
        which are the same for any number of threads. row_bytes: what `work` holds of a row beside the image. stored: as
        a tensor, the image comes in the type in which it is stored, and may not be changed."""
        size = max(64, min(TILE_BYTES[self._kind] // (4 * self.dim + row_bytes), BLOCK_ROWS[self._kind]))
        threads = None if self.device == "cpu" else 1
        each = partial(self._work_as_stored if stored and self.device != "cpu" else self._work, work)
        yield from in_threads(each, self._cut(size), threads=threads)
        self._checked = True

    def _work_as_stored(self, work: Callable[[slice, Array], Done], part: Part) -> Done:
        self._check(*part)
        return work(*part)

    def _work(self, work: Callable[[slice, Array], Done], part: Part) -> Done:
        buffer = self._buffer()
        try:
            return work(part[0], self._widened(*part, buffer))
        finally:
            self._spare.append(buffer)

    def _buffer(self) -> Array:
        try:
            return self._spare.pop()
        except IndexError:
            xp, rows = self.namespace, min(BLOCK_ROWS[self._kind], self.num_rows)
            return xp.empty((rows, self.dim), dtype=xp.float32, device=self.device)

    def _widened(self, rows: slice, stored: Array, buffer: Array) -> Array:
        self._check(rows, stored)
        tile = buffer[: len(stored)]
        if self.device == "cpu":
            widen(stored, tile)
        else:
            tile.copy_(stored)
        return tile

    def _check(self, rows: slice, stored: Array) -> None:
        if not self._checked:
            require_finite(stored, self.first + rows.start)

    def _cut(self, size: int) -> Iterator[Part]:
        """Pieces of at most `size` rows, as they are stored."""
        for rows, stored in self._sources():
            for start in range(rows.start, rows.stop, size):
                part = slice(start, min(start + size, rows.stop))
                yield part, stored[part.start - rows.start : part.stop - rows.start]

    def _sources(self) -> Iterator[Part]:
        """Blocks as they are stored: first those that were kept, then the rest, read ahead and kept where they fit."""
        kept = list(self._kept)
        yield from kept
        covered = kept[-1][0].stop if kept else 0
        if covered == self.num_rows:
            return
        rest = ((rows, image_BD) for rows, image_BD in self._blocks if rows.stop > covered)
        for rows, block in self._brought(rest):
            self._keep(rows, block)
            yield rows, block

    def _brought(self, blocks: Iterator[tuple[slice, np.ndarray]]) -> Iterator[Part]:
        """To the device, each read by a thread of its own while the one before it is worked on."""
        if self.device != "cpu":
            yield from uploaded(blocks, self.device)
            return
        for rows, image_BD in read_ahead(blocks):
            yield rows, np.ascontiguousarray(image_BD)

    def _keep(self, rows: slice, block: Array) -> None:
        in_line = rows.start == (self._kept[-1][0].stop if self._kept else 0)
        if in_line and block.nbytes <= self._budget:
            self._kept.append((rows, block))
            self._budget -= block.nbytes


def widen(stored: np.ndarray, out: np.ndarray) -> None:
    """float16, finite, into float32, exactly; five times as fast as numpy's own conversion, which takes one number at a
    time where the processor's instruction for it is not part of numpy's baseline."""
    if stored.dtype != np.float16:
        np.copyto(out, stored)
        return
    bits = out.view(np.int32)
    np.copyto(bits, stored.view(np.int16))
    bits <<= 13  # the fraction to its place, the exponent behind it; the sign is in the highest four bits
    bits &= -0x70002000  # and in the highest alone
    out *= np.float32(2.0**112)  # what the exponent is less by, 127 - 15; right for subnormal numbers too


def _cache_bytes(device: str) -> int:
    if device != "cuda":
        return CACHE_BYTES
    import torch

    return torch.cuda.mem_get_info()[0] // 2


def read_ahead(blocks: Iterable[tuple[slice, np.ndarray]]) -> Iterator[tuple[slice, np.ndarray]]:
    """The same blocks, each read by a thread of its own while the one before it is worked on; two at most are held."""
    end = (slice(0, 0), np.empty(0))
    source = iter(blocks)
    with ThreadPoolExecutor(1, thread_name_prefix="read-ahead") as pool:
        coming = pool.submit(next, source, end)
        while (item := coming.result()) is not end:
            coming = pool.submit(next, source, end)
            yield item


def require_finite(image_BD: Array, first_row: int) -> None:
    """InputError that names the rows whose embedding holds NaN or infinity."""
    if _all_finite(image_BD):
        return
    xp = namespace(image_BD)
    bad = np.flatnonzero(to_numpy(~xp.all(xp.isfinite(image_BD), axis=1))) + first_row
    if not len(bad):
        return
    named = ", ".join(str(row) for row in bad[:NAMED_ROWS])
    raise InputError(
        f"{len(bad)} embedding{'s hold' if len(bad) > 1 else ' holds'} NaN or infinity, rows {named}"
        f"{' …' if len(bad) > NAMED_ROWS else ''} of the readable ones.",
        so="No score can be computed from them.",
        do="Embed these images again (cleanctl embed --replace), or import finite arrays.",
    )


def _all_finite(image_BD: Array) -> bool:
    """True only if no entry is NaN or infinite."""
    if image_BD.dtype == np.float16:
        # All exponent bits are set: ten times as fast as isfinite, which converts each number to float32.
        return bool(np.bitwise_and(image_BD.view(np.int16), 0x7C00).max(initial=0) != 0x7C00)
    # One sum instead of B × D flags.
    xp = namespace(image_BD)
    return bool(xp.isfinite(xp.sum(image_BD, dtype=xp.float32)))


def require_labels(label_N: np.ndarray, num_rows: int, num_classes: int) -> np.ndarray:
    """int64 (N,) labels within 0…C-1, or InputError."""
    assert len(label_N) == num_rows, f"{len(label_N)} labels for {num_rows} rows"
    label = np.asarray(label_N).astype(np.int64)
    outside = np.flatnonzero((label < 0) | (label >= num_classes))
    if len(outside):
        named = ", ".join(str(row) for row in outside[:NAMED_ROWS])
        raise InputError(
            f"{len(outside)} labels lie outside 0…{num_classes - 1}, the first in rows {named}.",
            do="Give a class list that covers all labels, or correct the labels.",
        )
    return label


class PosteriorWriter:
    """Collects the statistics of blocks into a ClassPosterior of N rows."""

    def __init__(self, num_rows: int) -> None:
        self.posterior = ClassPosterior(
            p_label=np.zeros(num_rows, np.float32),
            p_max=np.zeros(num_rows, np.float32),
            suggested=np.zeros(num_rows, np.int32),
            p_second=np.zeros(num_rows, np.float32),
            entropy=np.zeros(num_rows, np.float32),
            log_p_label=np.zeros(num_rows, np.float32),
        )

    def put(self, rows: slice | np.ndarray, stats: ClassStats) -> None:
        for name, values in stats._asdict().items():
            getattr(self.posterior, name)[rows] = to_numpy(values)
