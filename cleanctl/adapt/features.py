"""Where a detector's image embeddings come from: the store's, or images through a tower that is tuned.

`Features` is the interface: the trainer asks for batches in training order and for one plain pass, and does not know
whether an image was read. `CachedFeatures` serves the embeddings of a store; it keeps them in memory where they are
few, else it reads a window of blocks at a time, so that memory stays bounded for any N. Its order is shuffled by
(seed, epoch) alone: the blocks, and the rows inside a window. A path that reads images (`--tune vpt-deep` and the
like) is one more subclass: `batches` gives embeddings with gradient, `trained` what is trained of its tower.

Dimensions: M readable rows of a split, B of a batch, D joint space. Positions count the readable rows, 0…M-1.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from cleanctl.score.blocks import CACHE_BYTES, require_finite
from cleanctl.store import Split
from cleanctl.store.schema import BLOCK_ROWS
from cleanctl.train.ranks import Ranks

WINDOW_BLOCKS = 4  # 262,144 rows are shuffled together
PLAIN_ROWS = 4_096
ORDER = 1  # this use's part of the seed


class Features(ABC):
    """num_rows: M. A batch is (position_B int64, image_BD of unit length); an image that cannot be read is left out.

    ranks: the processes that share the tower's work. Each gets the whole batch, so that losses are the same in all.
    """

    num_rows: int
    ranks: Ranks = Ranks()

    @abstractmethod
    def batches(self, epoch: int, batch_size: int, first: int = 0) -> Iterator[tuple[np.ndarray, Tensor]]:
        """The steps of an epoch from step `first` on, ⌈M / B⌉ in all, every position once; with gradient to `trained`.

        The same for the same seed, epoch and batch size, wherever it begins. The last batch may be smaller.
        """

    @abstractmethod
    def plain(self) -> Iterator[tuple[np.ndarray, Tensor]]:
        """Every position once, un-augmented and without gradient."""

    def trained(self) -> Mapping[str, nn.Parameter]:
        """What the similarity loss trains of an image tower; nothing where embeddings are cached."""
        return {}

    def add_gradients(self) -> None:
        """After a backward pass: adds up the parts of the gradient of `trained` that each process has."""
        return None


class CachedFeatures(Features):
    """The embeddings of a split that are OK, as float32 on `device`."""

    def __init__(
        self,
        split: Split,
        *,
        seed: int,
        device: str = "cpu",
        cache_bytes: int = CACHE_BYTES,
        window_blocks: int = WINDOW_BLOCKS,
        part: slice = slice(0, None),
    ) -> None:
        """window_blocks: of 65,536 rows, held in memory where the whole split exceeds cache_bytes of float16. part: of
        the readable rows; positions count from its first."""
        self._split, self._seed, self._device = split, seed, device
        self._row_M, self._first = split.ok_rows()[part], part.start
        self.num_rows = len(self._row_M)
        self._window = window_blocks
        self._block_M = self._row_M // BLOCK_ROWS
        self._kept: np.ndarray | None = None
        self._keeps = self.num_rows * split.dim * 2 <= cache_bytes

    def batches(self, epoch: int, batch_size: int, first: int = 0) -> Iterator[tuple[np.ndarray, Tensor]]:
        rest: list[tuple[np.ndarray, np.ndarray]] = []  # what a window left for the next one's first batch
        skip = first * batch_size
        for position_W in self._windows(epoch):
            if skip >= len(position_W):
                skip -= len(position_W)
                continue
            image_WD = self._read(position_W)
            rest.append((position_W[skip:], image_WD[skip:]))
            skip = 0
            position, image = (np.concatenate(parts) for parts in zip(*rest))
            whole = len(position) // batch_size * batch_size
            for start in range(0, whole, batch_size):
                yield self._batch(position[start : start + batch_size], image[start : start + batch_size])
            rest = [(position[whole:], image[whole:])]
        for position, image in rest:
            if len(position):
                yield self._batch(position, image)

    def plain(self) -> Iterator[tuple[np.ndarray, Tensor]]:
        for block in np.unique(self._block_M):
            position_W = np.flatnonzero(self._block_M == block)
            image_WD = self._read(position_W)
            for start in range(0, len(position_W), PLAIN_ROWS):
                part = slice(start, start + PLAIN_ROWS)
                yield self._batch(position_W[part], image_WD[part])

    def _batch(self, position_B: np.ndarray, image_BD: np.ndarray) -> tuple[np.ndarray, Tensor]:
        return position_B, torch.from_numpy(image_BD).to(self._device).float()

    def _windows(self, epoch: int) -> Iterator[np.ndarray]:
        """Positions, shuffled: some blocks at a time, in an order of their own each epoch."""
        rng = np.random.default_rng([self._seed, epoch, ORDER])
        block_K = rng.permutation(np.unique(self._block_M))
        for start in range(0, len(block_K), self._window):
            inside_M = np.isin(self._block_M, block_K[start : start + self._window])
            yield rng.permutation(np.flatnonzero(inside_M))

    def _read(self, position_W: np.ndarray) -> np.ndarray:
        """(W, D) float16 in the order asked for."""
        if self._keeps:
            if self._kept is None:
                self._kept = self._read_blocks(np.arange(self.num_rows))
            return self._kept[position_W]
        return self._read_blocks(position_W)

    def _read_blocks(self, position_W: np.ndarray) -> np.ndarray:
        image_WD = np.empty((len(position_W), self._split.dim), np.float16)
        block_W = self._block_M[position_W]
        for block in np.unique(block_W):
            first = int(block) * BLOCK_ROWS
            image_BD = self._split.embeddings(slice(first, min(first + BLOCK_ROWS, self._split.num_rows)))
            mine_K = np.flatnonzero(self._block_M == block)  # all readable rows of it, so that a bad one is named right
            require_finite(
                torch.from_numpy(image_BD[self._row_M[mine_K] - first]).float(), self._first + int(mine_K[0])
            )
            here_W = block_W == block
            image_WD[here_W] = image_BD[self._row_M[position_W[here_W]] - first]
        return image_WD
