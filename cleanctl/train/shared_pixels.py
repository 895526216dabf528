"""Images that are read in every epoch, by processes that share a run: each reads its part of every batch, and all get
the whole one.

Random crops that a loader makes are drawn by rank: other ones than a single process draws, from the same distribution.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import closing

import numpy as np
import torch
from torch import Tensor

from cleanctl.train.pixels import Pixels, StreamedPixels
from cleanctl.train.ranks import Ranks


def shared(pixels: Pixels, ranks: Ranks) -> Pixels:
    """What is held is at hand in every process, and one process reads alone; else the reading is shared."""
    return SharedPixels(pixels, ranks) if ranks.count > 1 and isinstance(pixels, StreamedPixels) else pixels


class SharedPixels:
    """A `Pixels` over that of this rank. All ranks ask for the same batches."""

    def __init__(self, pixels: Pixels, ranks: Ranks) -> None:
        self.pixels, self.ranks = pixels, ranks
        self.ok_M = pixels.ok_M

    def batches(
        self, position: Sequence[np.ndarray], *, seed: int = 0, done: int = 0
    ) -> Generator[tuple[np.ndarray, Tensor], None, None]:
        parts = [np.array_split(whole, self.ranks.count) for whole in position]
        own = [each[self.ranks.number] for each in parts]
        asked = [part if len(part) else whole[:1] for part, whole in zip(own, position)]  # an idle rank reads one too
        seed = int(np.random.default_rng([seed, self.ranks.number]).integers(2**62))
        with closing(self.pixels.batches(asked, seed=seed, done=self._own_done(position, own, done))) as read:
            for each, part, (ok_B, pixel) in zip(parts, own, read):
                if not len(part):
                    ok_B, pixel = ok_B[:0], pixel[:0]
                yield self._gathered([len(one) for one in each], ok_B, pixel)

    def _own_done(self, position: Sequence[np.ndarray], own: Sequence[np.ndarray], done: int) -> int:
        """This rank's share of `done` places, exact where all batches have one size."""
        size = len(position[0]) if position else 0
        return done // size * len(own[0]) if size and done % size == 0 else done

    def _gathered(self, sizes: list[int], ok_B: np.ndarray, pixel: Tensor) -> tuple[np.ndarray, Tensor]:
        """Of every rank's part which images could be read, and those, in the batch's order."""
        most = max(sizes)
        padded = pixel.new_zeros((most, *pixel.shape[1:]))
        padded[: len(pixel)] = pixel
        ok = np.zeros(most, np.uint8)
        ok[: len(ok_B)] = ok_B
        all_ok = [one.numpy().astype(bool) for one in self.ranks.gather(torch.from_numpy(ok))]
        images = self.ranks.gather(padded)
        readable = [image[: int(one.sum())] for image, one in zip(images, all_ok)]
        return np.concatenate([one[:size] for one, size in zip(all_ok, sizes)]), torch.cat(readable)
