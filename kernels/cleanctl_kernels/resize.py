"""Images of any size → uint8 crops of one size: the part `box` of each is scaled as torch's antialiased interpolation
does (and Pillow, whose filters these are), and the crop is cut from the result, with `fill` where that ends.

`resize_crops` scales all images in one launch of the Triton kernel on CUDA; elsewhere `resize_crops_reference` takes
one after the other through torch. Both compute in float32 and round once. Leaves nothing on disk.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from cleanctl_kernels.paths import uses_triton
from cleanctl_kernels.types import Cut

INTERPOLATIONS = ("bicubic", "bilinear")


def resize_crops(
    images: Sequence[torch.Tensor], cuts: Sequence[Cut], *, size: int, fill: int = 0, interpolation: str = "bicubic"
) -> torch.Tensor:
    """uint8 (K, S, S, 3) of K images, uint8 (3, H, W) of any strides, all on one device. fill: 0…255."""
    assert interpolation in INTERPOLATIONS, interpolation
    assert len(images) == len(cuts) > 0, (len(images), len(cuts))
    if uses_triton(images[0].device.type):
        from cleanctl_kernels.resize_triton import resize_crops_triton

        return resize_crops_triton(images, cuts, size=size, fill=fill, interpolation=interpolation)
    return resize_crops_reference(images, cuts, size=size, fill=fill, interpolation=interpolation)


def resize_crops_reference(
    images: Sequence[torch.Tensor], cuts: Sequence[Cut], *, size: int, fill: int = 0, interpolation: str = "bicubic"
) -> torch.Tensor:
    """Image after image, by torch's own operation."""
    crop_KSSC = torch.full((len(images), size, size, 3), fill, dtype=torch.uint8, device=images[0].device)
    for image_CHW, cut, crop_SSC in zip(images, cuts, crop_KSSC):
        x, y, width, height = cut.box
        part_CHW = image_CHW[:, y : y + height, x : x + width]
        if (height, width) != (cut.height, cut.width):
            scaled = F.interpolate(part_CHW[None].float(), (cut.height, cut.width), mode=interpolation, antialias=True)
            part_CHW = scaled[0].round_().clamp_(0, 255)
        part_HWC = part_CHW.permute(1, 2, 0)[max(0, cut.top) : cut.top + size, max(0, cut.left) : cut.left + size]
        rows, columns = part_HWC.shape[:2]
        crop_SSC[max(0, -cut.top) :, max(0, -cut.left) :][:rows, :columns] = part_HWC
    return crop_KSSC
