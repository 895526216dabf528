# mypy: disallow-untyped-defs=False
"""The Triton kernel of `resize_crops`: images of different sizes in one launch, each found by its address in a table.

A program computes one row of one crop: it walks over the lines and, in each, the columns under the filter, both of
which it weighs as it goes. A line's pixels are read once for each row that they weigh in, from the caches; nothing is
kept between the two directions, where a separate pass would hold H × S × 3 numbers for each image.
Runs on a CPU under TRITON_INTERPRET=1. Leaves nothing on disk.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl

from cleanctl_kernels.types import Cut

COLUMNS = 12  # of the table
BLOCK = 128


def resize_crops_triton(
    images: Sequence[torch.Tensor], cuts: Sequence[Cut], *, size: int, fill: int = 0, interpolation: str = "bicubic"
) -> torch.Tensor:
    device = images[0].device
    rows = [
        (image.data_ptr(), *image.stride(), *cut.box, cut.width, cut.height, cut.left, cut.top)
        for image, cut in zip(images, cuts)
    ]
    table = torch.tensor(rows, dtype=torch.int64)
    if device.type == "cuda":
        table = table.pin_memory().to(device, non_blocking=True)
    crop_KSSC = torch.empty(len(images), size, size, 3, dtype=torch.uint8, device=device)
    _resize_kernel[(len(images), size, triton.cdiv(size, BLOCK))](
        table,
        crop_KSSC,
        size,
        fill,
        CUBIC=interpolation == "bicubic",
        COLUMNS=COLUMNS,
        BLOCK=BLOCK,
        enable_fp_fusion=True,
    )
    return crop_KSSC


@triton.jit
def _weight(distance, CUBIC: tl.constexpr):
    """Keys's cubic with a = -1/2, or the triangle; of a distance in the scale of the filter."""
    x = tl.abs(distance)
    if CUBIC:
        near = (1.5 * x - 2.5) * x * x + 1.0
        far = ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0
        weight = tl.where(x < 1.0, near, tl.where(x < 2.0, far, 0.0))
    else:
        weight = tl.maximum(1.0 - x, 0.0)
    return weight


@triton.jit
def _resize_kernel(table_ptr, out_ptr, size, fill, CUBIC: tl.constexpr, COLUMNS: tl.constexpr, BLOCK: tl.constexpr):
    k = tl.program_id(0).to(tl.int64)
    i = tl.program_id(1)
    j = tl.program_id(2) * BLOCK + tl.arange(0, BLOCK)
    row = table_ptr + k * COLUMNS
    image_ptr = tl.load(row).to(tl.pointer_type(tl.uint8))
    stride_c = tl.load(row + 1)
    stride_y = tl.load(row + 2)
    stride_x = tl.load(row + 3)
    image_ptr += tl.load(row + 4) * stride_x + tl.load(row + 5) * stride_y
    box_width = tl.load(row + 6).to(tl.int32)
    box_height = tl.load(row + 7).to(tl.int32)
    width = tl.load(row + 8).to(tl.int32)
    height = tl.load(row + 9).to(tl.int32)
    x = tl.load(row + 10).to(tl.int32) + j
    y = tl.load(row + 11).to(tl.int32) + i

    scale_x = box_width.to(tl.float32) / width.to(tl.float32)
    scale_y = box_height.to(tl.float32) / height.to(tl.float32)
    stretch_x = tl.maximum(scale_x, 1.0)
    stretch_y = tl.maximum(scale_y, 1.0)
    reach_x = (2.0 if CUBIC else 1.0) * stretch_x
    reach_y = (2.0 if CUBIC else 1.0) * stretch_y
    at_x = (x + 0.5) * scale_x
    at_y = (y + 0.5) * scale_y
    first_x = tl.maximum((at_x - reach_x + 0.5).to(tl.int32), 0)
    first_y = tl.maximum((at_y - reach_y + 0.5).to(tl.int32), 0)
    end_x = tl.minimum((at_x + reach_x + 0.5).to(tl.int32), box_width)
    end_y = tl.minimum((at_y + reach_y + 0.5).to(tl.int32), box_height)
    inside = (x >= 0) & (x < tl.where((y >= 0) & (y < height), width, 0))
    most = (2.0 * reach_x).to(tl.int32) + 2

    red = tl.zeros((BLOCK,), tl.float32)
    green = tl.zeros((BLOCK,), tl.float32)
    blue = tl.zeros((BLOCK,), tl.float32)
    total = tl.zeros((BLOCK,), tl.float32)
    for v in range(first_y, end_y):
        weight_y = _weight((v + 0.5 - at_y) / stretch_y, CUBIC)
        line_ptr = image_ptr + v * stride_y
        for tap in range(0, most):
            u = first_x + tap
            ok = inside & (u < end_x)
            weight = tl.where(ok, weight_y * _weight((u + 0.5 - at_x) / stretch_x, CUBIC), 0.0)
            pixel_ptr = line_ptr + u * stride_x
            red += weight * tl.load(pixel_ptr, mask=ok, other=0).to(tl.float32)
            green += weight * tl.load(pixel_ptr + stride_c, mask=ok, other=0).to(tl.float32)
            blue += weight * tl.load(pixel_ptr + 2 * stride_c, mask=ok, other=0).to(tl.float32)
            total += weight
    total = tl.where(inside, total, 1.0)
    out = out_ptr + ((k * size + i) * size + j) * 3
    for channel in tl.static_range(3):
        value = red if channel == 0 else (green if channel == 1 else blue)
        value = tl.minimum(tl.maximum(tl.floor(value / total + 0.5), 0.0), 255.0)
        value = tl.where(inside, value, fill * 1.0)
        tl.store(out + channel, value.to(tl.uint8), mask=j < size)
