"""Embeddings tile by tile as float32 tensors on the device that scores them, checked once.

In: EmbeddingBlocks (float16, N × D, re-iterable). Out: (rows, tensor) in order. `Float32Blocks` reads the next block
while the last one is worked on, and keeps as many blocks (in float16) as a fixed budget holds, so that further passes
over a small split read nothing and memory still does not grow with N. Leaves nothing on disk.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cleanctl.errors import InputError
from cleanctl.records import ClassPosterior, EmbeddingBlocks

if TYPE_CHECKING:
    import torch
    from cleanctl_kernels.zeroshot import ClassStats

CACHE_BYTES = 256 << 20
BLOCK_ROWS = {"cpu": 4_096, "cuda": 65_536}
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
        for rows, image_BD in self.blocks:
            start, stop = max(rows.start, first), min(rows.stop, self.part.stop)
            if start < stop:
                yield slice(start - first, stop - first), image_BD[start - rows.start : stop - rows.start]


class Float32Blocks:
    """Tiles of at most BLOCK_ROWS rows in float32 on `device`; the first pass refuses rows that are not finite.

    A tensor is valid until the next one is asked for: all of a pass lie in one buffer. Writing float32 into memory
    that is there costs a twentieth of what fresh memory does, which the system has to hand out page by page.
    """

    def __init__(self, blocks: EmbeddingBlocks, *, device: str = "cpu", cache_bytes: int | None = None) -> None:
        """cache_bytes: None is CACHE_BYTES, on CUDA half of the device memory that is free."""
        self.num_rows, self.dim, self.device = blocks.num_rows, blocks.dim, device
        self._blocks = blocks
        self._first = blocks.part.start if isinstance(blocks, PartBlocks) else 0
        self._budget = _cache_bytes(device) if cache_bytes is None else cache_bytes
        self._tile_rows = BLOCK_ROWS[device]
        self._kept: list[tuple[slice, torch.Tensor]] = []
        self._spare: list[torch.Tensor] = []  # buffers between passes; passes may be nested, each has its own
        self._checked = False

    def __iter__(self) -> Iterator[tuple[slice, torch.Tensor]]:
        import torch

        if not self._spare:
            self._spare.append(torch.empty(min(self._tile_rows, self.num_rows), self.dim, device=self.device))
        buffer = self._spare.pop()
        try:
            for rows, image_BD in self._sources():
                for start in range(rows.start, rows.stop, self._tile_rows):
                    part = slice(start, min(start + self._tile_rows, rows.stop))
                    tile = buffer[: part.stop - start].copy_(image_BD[start - rows.start : part.stop - rows.start])
                    if not self._checked:
                        require_finite(tile, self._first + start)
                    yield part, tile
            self._checked = True
        finally:
            self._spare.append(buffer)

    def _sources(self) -> Iterator[tuple[slice, torch.Tensor]]:
        """Blocks as they are stored: first those that were kept, then the rest, read ahead and kept where they fit."""
        import torch

        kept = list(self._kept)
        yield from kept
        covered = kept[-1][0].stop if kept else 0
        if covered == self.num_rows:
            return
        for rows, image_BD in read_ahead(self._blocks):
            if rows.stop > covered:
                block = torch.from_numpy(np.ascontiguousarray(image_BD)).to(self.device)
                self._keep(rows, block)
                yield rows, block

    def _keep(self, rows: slice, block: torch.Tensor) -> None:
        size = block.numel() * block.element_size()
        in_line = rows.start == (self._kept[-1][0].stop if self._kept else 0)
        if in_line and size <= self._budget:
            self._kept.append((rows, block))
            self._budget -= size


def _cache_bytes(device: str) -> int:
    import torch

    return torch.cuda.mem_get_info()[0] // 2 if device == "cuda" else CACHE_BYTES


def read_ahead(blocks: EmbeddingBlocks) -> Iterator[tuple[slice, np.ndarray]]:
    """The same blocks, each read by a thread of its own while the one before it is worked on; two at most are held."""
    end = (slice(0, 0), np.empty(0))
    source = iter(blocks)
    with ThreadPoolExecutor(1, thread_name_prefix="read-ahead") as pool:
        coming = pool.submit(next, source, end)
        while (item := coming.result()) is not end:
            coming = pool.submit(next, source, end)
            yield item


def require_finite(image_BD: torch.Tensor, first_row: int) -> None:
    """InputError that names the rows whose embedding holds NaN or infinity."""
    # One sum instead of B × D flags: it is finite exactly if no entry is NaN or infinite (rows have norm 1).
    if bool(image_BD.sum().isfinite()):
        return
    bad = (~image_BD.isfinite().all(dim=1)).nonzero().flatten().cpu().numpy() + first_row
    if not len(bad):
        return
    named = ", ".join(str(row) for row in bad[:NAMED_ROWS])
    raise InputError(
        f"{len(bad)} embedding{'s hold' if len(bad) > 1 else ' holds'} NaN or infinity, rows {named}"
        f"{' …' if len(bad) > NAMED_ROWS else ''} of the readable ones.",
        so="No score can be computed from them.",
        do="Embed these images again (cleanctl embed --replace), or import finite arrays.",
    )


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
            getattr(self.posterior, name)[rows] = values.cpu().numpy()
