# mypy: disallow-untyped-defs=False
"""The Triton kernel of `pixels_to_input`: crop, flip, scale, shift and cast in one pass over the output.

Runs on a CPU under TRITON_INTERPRET=1. Leaves nothing on disk.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from cleanctl_kernels.types import Window

BLOCK = 1024


def pixels_to_input_triton(
    pixel_BHWC: torch.Tensor, mean_3: torch.Tensor, std_3: torch.Tensor, window: Window, *, dtype: torch.dtype
) -> torch.Tensor:
    batch, height, width, _ = pixel_BHWC.shape
    size = window.size
    out = torch.empty(batch, size, size, 3, dtype=dtype, device=pixel_BHWC.device)
    _pixels_kernel[(batch, triton.cdiv(size * size * 3, BLOCK))](
        pixel_BHWC.contiguous(),
        window.top_B.contiguous(),
        window.left_B.contiguous(),
        window.flip_B.to(torch.int8),
        mean_3.float().contiguous(),
        (1.0 / std_3.float()).contiguous(),
        out,
        height,
        width,
        size,
        window.fill,
        BLOCK=BLOCK,
        enable_fp_fusion=True,
    )
    return out.permute(0, 3, 1, 2)


@triton.jit
def _pixels_kernel(
    pixel_ptr,
    top_ptr,
    left_ptr,
    flip_ptr,
    mean_ptr,
    inverse_std_ptr,
    out_ptr,
    height,
    width,
    size,
    fill,
    BLOCK: tl.constexpr,
):
    b = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    ok = at < size * size * 3
    channel = at % 3
    j = (at // 3) % size
    i = at // (3 * size)
    flip = tl.load(flip_ptr + b)
    y = tl.load(top_ptr + b) + i
    x = tl.load(left_ptr + b) + tl.where(flip != 0, size - 1 - j, j)
    inside = ok & (y >= 0) & (y < height) & (x >= 0) & (x < width)
    pixel = tl.load(pixel_ptr + ((b * height + y) * width + x) * 3 + channel, mask=inside, other=0)
    value = tl.where(inside, pixel.to(tl.float32), fill * 1.0)
    mean = tl.load(mean_ptr + channel, mask=ok, other=0.0)
    inverse_std = tl.load(inverse_std_ptr + channel, mask=ok, other=1.0)
    value = (value / 255.0 - mean) * inverse_std
    tl.store(out_ptr + b * size * size * 3 + at, value.to(out_ptr.dtype.element_ty), mask=ok)
