"""The batched operations do what Pillow does to one image at a time."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from cleanctl.train import imageops

GREY = (128, 128, 128)


def rotate_over_grey(image: Image.Image, degrees: float) -> Image.Image:
    turned = image.convert("RGBA").rotate(degrees)
    return Image.composite(turned, Image.new("RGBA", turned.size, (*GREY, 255)), turned).convert("RGB")


def affine(image: Image.Image, matrix: tuple[float, ...], how: Image.Resampling) -> Image.Image:
    return image.transform(image.size, Image.Transform.AFFINE, matrix, how, fillcolor=GREY)


PILLOW: dict[str, Callable[[Image.Image, float], Image.Image]] = {
    "color": lambda i, m: ImageEnhance.Color(i).enhance(m),
    "contrast": lambda i, m: ImageEnhance.Contrast(i).enhance(m),
    "brightness": lambda i, m: ImageEnhance.Brightness(i).enhance(m),
    "sharpness": lambda i, m: ImageEnhance.Sharpness(i).enhance(m),
    "posterize": lambda i, m: ImageOps.posterize(i, int(m)),
    "solarize": ImageOps.solarize,
    "invert": lambda i, m: ImageOps.invert(i),
    "autocontrast": lambda i, m: ImageOps.autocontrast(i),
    "equalize": lambda i, m: ImageOps.equalize(i),
    "rotate": rotate_over_grey,
    "shear_x": lambda i, m: affine(i, (1, m, 0, 0, 1, 0), Image.Resampling.BICUBIC),
    "shear_y": lambda i, m: affine(i, (1, 0, 0, m, 1, 0), Image.Resampling.BICUBIC),
    "translate_x": lambda i, m: affine(i, (1, 0, m * i.size[0], 0, 1, 0), Image.Resampling.NEAREST),
    "translate_y": lambda i, m: affine(i, (1, 0, 0, 0, 1, m * i.size[1]), Image.Resampling.NEAREST),
}
STRENGTHS = {
    "color": (0.1, 1.0, 1.9),
    "contrast": (0.1, 1.0, 1.9),
    "brightness": (0.1, 1.0, 1.9),
    "sharpness": (0.1, 1.0, 1.9),
    "posterize": (4, 6, 8),
    "solarize": (0, 100, 256),
    "rotate": (0, 13, 30),
    "shear_x": (-0.3, 0.0, 0.21),
    "shear_y": (-0.3, 0.0, 0.21),
    "translate_x": (-0.4, 0.0, 0.23),
    "translate_y": (-0.4, 0.0, 0.23),
}


def photos(side: int, count: int = 3) -> np.ndarray:
    """Smooth random images, (count, side, side, 3) uint8, one with a constant channel."""
    rng = np.random.default_rng(side)
    noise = rng.integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    smooth = [np.asarray(Image.fromarray(one).filter(ImageFilter.GaussianBlur(2))) for one in noise]
    batch = np.stack(smooth)
    batch[0, :, :, 1] = 77
    return batch


@pytest.mark.parametrize("side", [32, 47])
@pytest.mark.parametrize("name", sorted(PILLOW))
def test_a_batched_operation_gives_pillows_pixels(name: str, side: int) -> None:
    strengths = STRENGTHS.get(name, (0, 0, 0))
    images = photos(side)
    batch = torch.from_numpy(images).permute(0, 3, 1, 2)
    got = getattr(imageops, name)(batch, torch.tensor(strengths, dtype=torch.float32)).permute(0, 2, 3, 1).numpy()
    for image, strength, ours in zip(images, strengths, got):
        expected = np.asarray(PILLOW[name](Image.fromarray(image), strength)).astype(int)
        differ = np.abs(expected - ours)
        # Nearest-pixel geometry may fall the other way on an exact tie; arithmetic may round the other way by one.
        assert (differ > 1).mean() < 0.004, f"{name} {strength}: {(differ > 1).mean():.2%} of the values differ"


def test_cutout_covers_the_square_it_is_told() -> None:
    batch = torch.full((2, 3, 32, 32), 9, dtype=torch.uint8)
    got = imageops.cutout(batch, torch.tensor([10.0, 0.0]), torch.tensor([[0.5, 0.0], [0.5, 0.5]]))
    assert (got[0, 0] != 9).sum() == 10 * 5  # half of the square lies outside on the left
    assert torch.equal(got[1], batch[1])


def test_operations_do_not_write_into_their_input() -> None:
    batch = torch.from_numpy(photos(32)).permute(0, 3, 1, 2)
    before = batch.clone()
    for name in PILLOW:
        getattr(imageops, name)(batch, torch.tensor(STRENGTHS.get(name, (0, 0, 0)), dtype=torch.float32))
    assert torch.equal(batch, before)
