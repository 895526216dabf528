"""How a tower that is tuned sees an image: the crop of training, and the plain view of the final pass.

A view belongs to a preset (docs/method.md C.3); without one the model's own preprocessing is the plain view, and
training moves it by up to an eighth of its side. Pure; every random choice comes from the generator given.

Dimensions: B images of a batch, S side that the tower takes, L side as loaded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from torch import Tensor

from cleanctl.clip.provenance import EncoderInfo
from cleanctl.records import PixelSpec
from cleanctl.train import augment

Three = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class View:
    """crop: "pad" moves the image in a black frame of S/8, "random" is a window of S in 8/7·S. resize: "shortest" keeps
    the shape and the middle, "squash" does not. None: as the model's own preprocessing.
    """

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    crop: Literal["pad", "random"] = "pad"
    resize: Literal["shortest", "longest", "squash"] | None = None
    interpolation: Literal["bicubic", "bilinear"] | None = None
    mean: Three | None = None
    std: Three | None = None


class Views:
    """A view at a model's size. `spec` is what the loader gives: squares of L pixels."""

    def __init__(self, view: View, info: EncoderInfo) -> None:
        own = info.pixels
        self.size = own.size
        self._pad = own.size // 8 if view.crop == "pad" else 0
        side = own.size if view.crop == "pad" else round(own.size * 8 / 7)
        self._mean, self._std = view.mean or info.mean, view.std or info.std
        self.spec = PixelSpec(
            size=side,
            resize_mode=view.resize or own.resize_mode,
            interpolation=view.interpolation or own.interpolation,
            fill=own.fill,
        )

    def training(self, image_BCLL: Tensor, rng: np.random.Generator) -> Tensor:
        """uint8 → float32 (B, 3, S, S): a crop, mirrored or not, normalised."""
        count, side = len(image_BCLL), image_BCLL.shape[-1]
        image = augment.draw_crop(count, side, self.size, self._pad, rng).to(image_BCLL)
        return augment.normalise(augment.draw_flip(count, rng).to(image), self._mean, self._std)

    def plain(self, image_BCLL: Tensor) -> Tensor:
        """uint8 → float32 (B, 3, S, S): the middle, normalised."""
        begin = (image_BCLL.shape[-1] - self.size) // 2
        inside = slice(begin, begin + self.size)
        return augment.normalise(image_BCLL[:, :, inside, inside], self._mean, self._std)
