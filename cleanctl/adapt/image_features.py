"""Embeddings of images that go through a tower under tuning, with gradient: crops in training, a plain pass at the end.

The order of an epoch comes from (seed, epoch), the crops of a step from (seed, epoch, step), so that a run that goes on
after a kill sees what an uninterrupted one sees. Images are held as bytes where there is room for them
(train/pixels.py). Nothing on disk.

Dimensions: M readable rows of a split, B of a batch, D joint space.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from cleanctl.adapt.features import Features
from cleanctl.adapt.views import Views
from cleanctl.clip.tune.tower import TunedTower
from cleanctl.errors import InputError
from cleanctl.runtime import torch_dtype
from cleanctl.train.pixels import Pixels
from cleanctl.train.ranks import Ranks
from cleanctl.train.shared_pixels import shared

PLAIN_BATCH = 256
ORDER, CROPS = 2, 3  # these uses' parts of the seed
FP16_SCALE = 1024.0  # of gradients inside an fp16 tower, so that small ones do not vanish


class ImageFeatures(Features):
    """precision: "fp32", "bf16" or "fp16", of the tower's arithmetic; what is trained stays float32."""

    def __init__(
        self,
        tower: TunedTower,
        pixels: Pixels,
        views: Views,
        *,
        seed: int,
        device: str,
        precision: str,
        ranks: Ranks | None = None,
    ) -> None:
        self.ranks = ranks or Ranks()
        self._trained = dict(tower.trained)
        self._tower, self._pixels, self._views = self.ranks.share(tower), shared(pixels, self.ranks), views
        self._seed, self._device, self._precision = seed, device, precision
        self.num_rows = len(pixels.ok_M)
        self._scale = FP16_SCALE if precision == "fp16" else 1.0
        if self._scale != 1:
            for parameter in tower.trained.values():
                parameter.register_hook(lambda gradient: gradient / FP16_SCALE)

    def batches(self, epoch: int, batch_size: int, first: int = 0) -> Iterator[tuple[np.ndarray, Tensor]]:
        order_M = np.random.default_rng([self._seed, epoch, ORDER]).permutation(self.num_rows)
        planned = [order_M[at : at + batch_size] for at in range(0, self.num_rows, batch_size)][first:]
        read = self._pixels.batches(planned, seed=self._seed, done=first * batch_size)
        for step, (position_B, (ok_B, pixel_BLLC)) in enumerate(zip(planned, read), start=first):
            _require_all(ok_B)
            rng = np.random.default_rng([self._seed, epoch, step, CROPS])
            image_BD = self._embed(self._views.training(pixel_BLLC.permute(0, 3, 1, 2), rng))
            yield position_B, _scaled_gradient(image_BD, self._scale)

    def plain(self) -> Iterator[tuple[np.ndarray, Tensor]]:
        every_M = np.arange(self.num_rows)
        planned = [every_M[at : at + PLAIN_BATCH] for at in range(0, self.num_rows, PLAIN_BATCH)]
        for position_B, (ok_B, pixel_BLLC) in zip(planned, self._pixels.batches(planned)):
            _require_all(ok_B)
            with torch.no_grad():
                yield position_B, self._embed(self._views.plain(pixel_BLLC.permute(0, 3, 1, 2)))

    def trained(self) -> Mapping[str, nn.Parameter]:
        return {f"tower.{name}": parameter for name, parameter in self._trained.items()}

    def add_gradients(self) -> None:
        self.ranks.add_gradients(self._tower)

    def _embed(self, input_BCSS: Tensor) -> Tensor:
        with self._autocast():
            feature_BD = self._tower(input_BCSS)
        return functional.normalize(feature_BD.float(), dim=1)

    def _autocast(self) -> AbstractContextManager[object]:
        if self._precision == "fp32":
            return nullcontext()
        return torch.autocast(self._device, dtype=torch_dtype(self._precision))


def _scaled_gradient(image_BD: Tensor, scale: float) -> Tensor:
    if scale != 1 and image_BD.requires_grad:
        image_BD.register_hook(lambda gradient: gradient * scale)
    return image_BD


def _require_all(ok_B: np.ndarray) -> None:
    if not ok_B.all():
        raise InputError(
            f"{np.count_nonzero(~ok_B):,} images of a batch could be read by embed and cannot be read now.",
            so="A detector cannot say anything of them.",
            do="Bring them back, or run embed again, which takes note of it.",
        )
