"""Promises about `resize_crops`: torch's antialiased scaling within one grey level, for images of any size at once."""

from __future__ import annotations

import pytest
import torch
from cleanctl_kernels.resize import resize_crops, resize_crops_reference
from cleanctl_kernels.types import Cut

SIZE = 4  # the interpreter takes its time
CASES = {
    "shrunk": ((9, 12), Cut((0, 0, 12, 9), 5, 4, 1, 0)),
    "grown": ((3, 2), Cut((0, 0, 2, 3), 4, 6, 0, 1)),
    "as it is": ((4, 6), Cut((0, 0, 6, 4), 6, 4, 1, 0)),
    "a box of it": ((10, 10), Cut((2, 1, 7, 6), 4, 4, 0, 0)),
    "with a border": ((8, 4), Cut((0, 0, 4, 8), 2, 4, -1, 0)),  # to one column torch scales wrongly in float32
    "far down": ((17, 14), Cut((0, 0, 14, 17), 4, 5, 0, 0)),
}


def image_of(shape, generator):
    """Noise and a step, at which a cubic overshoots both ends of the range."""
    image = torch.randint(0, 256, (3, *shape), dtype=torch.uint8, generator=generator)
    image[:, : shape[0] // 2, : shape[1] // 2] = 255
    image[1, shape[0] // 2 :] = 0
    return image


@pytest.fixture
def resize_triton():
    pytest.importorskip("triton")
    from cleanctl_kernels.resize_triton import resize_crops_triton

    return resize_crops_triton


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_the_kernel_scales_as_torch_does(resize_triton, interpolation, device):
    generator = torch.Generator().manual_seed(0)
    images = [image_of(shape, generator) for shape, _ in CASES.values()]
    images[0] = images[0].permute(1, 2, 0).contiguous().permute(2, 0, 1)  # a decoder may interleave the colours
    cuts = [cut for _, cut in CASES.values()]
    expected = resize_crops_reference(images, cuts, size=SIZE, fill=77, interpolation=interpolation)
    moved = [image.to(device, memory_format=torch.preserve_format) for image in images]
    found = resize_triton(moved, cuts, size=SIZE, fill=77, interpolation=interpolation).cpu()
    assert found.shape == (len(CASES), SIZE, SIZE, 3)
    away = (found.int() - expected.int()).abs().flatten(1)
    assert away.max() <= 1, dict(zip(CASES, away.amax(1).tolist()))
    assert away.float().mean() < 0.02


def test_the_reference_is_torchs_crop_and_its_border_is_the_fill():
    generator = torch.Generator().manual_seed(1)
    image, cut = image_of((8, 4), generator), CASES["with a border"][1]
    crop = resize_crops([image], [cut], size=SIZE, fill=9)[0]
    assert (crop[:, :1] == 9).all()
    assert (crop[:, 3:] == 9).all()
    scaled = torch.nn.functional.interpolate(image[None].double(), (4, 2), mode="bicubic", antialias=True)[0]
    assert (crop[:, 1:3] - scaled.clamp(0, 255).permute(1, 2, 0)).abs().max() <= 0.51
