"""Decoded images → the input of a network: uint8 (B, H, W, 3) → normalised (B, 3, S, S), channels last.

    out[b, c, i, j] = (pixel[b, top_b + i, left_b + j', c] / 255 - mean_c) / std_c,   j' = S-1-j where flipped, else j

Crops may reach over the border; what lies outside is `fill` (0…255). `pixels_to_input` takes the Triton kernel on CUDA
and the CPU twin elsewhere; `pixels_to_input_reference` is what both are tested against. Leaves nothing on disk.
"""

from __future__ import annotations

import torch

from cleanctl_kernels.paths import uses_triton
from cleanctl_kernels.types import Window


def whole(pixel_BHWC: torch.Tensor) -> Window:
    """The window that takes square images as they are."""
    zero_B = torch.zeros(len(pixel_BHWC), dtype=torch.int64, device=pixel_BHWC.device)
    return Window(zero_B, zero_B, zero_B.bool(), pixel_BHWC.shape[1])


def pixels_to_input(
    pixel_BHWC: torch.Tensor,
    mean_3: torch.Tensor,
    std_3: torch.Tensor,
    window: Window | None = None,
    *,
    dtype: torch.dtype = torch.float16,
) -> torch.Tensor:
    """mean_3, std_3: float32, of pixels scaled to [0, 1]. Returns `dtype` (B, 3, S, S) in channels-last memory."""
    window = window or whole(pixel_BHWC)
    if uses_triton(pixel_BHWC.device.type):
        from cleanctl_kernels.pixels_triton import pixels_to_input_triton

        return pixels_to_input_triton(pixel_BHWC, mean_3, std_3, window, dtype=dtype)
    return pixels_to_input_cpu(pixel_BHWC, mean_3, std_3, window, dtype=dtype)


def pixels_to_input_reference(
    pixel_BHWC: torch.Tensor, mean_3: torch.Tensor, std_3: torch.Tensor, window: Window, *, dtype: torch.dtype
) -> torch.Tensor:
    """Image after image, in float32, rounded once at the end."""
    images = []
    for pixel, top, left, flip in zip(pixel_BHWC, window.top_B, window.left_B, window.flip_B):
        image = torch.full((window.size, window.size, 3), float(window.fill), device=pixel.device)
        for i in range(window.size):
            for j in range(window.size):
                y, x = int(top) + i, int(left) + (window.size - 1 - j if flip else j)
                if 0 <= y < pixel.shape[0] and 0 <= x < pixel.shape[1]:
                    image[i, j] = pixel[y, x].float()
        images.append((image / 255.0 - mean_3) / std_3)
    return torch.stack(images).to(dtype).permute(0, 3, 1, 2)


def pixels_to_input_cpu(
    pixel_BHWC: torch.Tensor, mean_3: torch.Tensor, std_3: torch.Tensor, window: Window, *, dtype: torch.dtype
) -> torch.Tensor:
    """Gathers rows and columns as bytes where there is a window, then scales and shifts once."""
    cut = pixel_BHWC if _is_whole(pixel_BHWC, window) else _cut(pixel_BHWC, window)
    out = cut.float()
    out *= 1.0 / (255.0 * std_3)
    out -= mean_3 / std_3
    return out.to(dtype).permute(0, 3, 1, 2)


def _is_whole(pixel_BHWC: torch.Tensor, window: Window) -> bool:
    square = pixel_BHWC.shape[1] == pixel_BHWC.shape[2] == window.size
    return square and not bool(window.flip_B.any() or window.top_B.any() or window.left_B.any())


def _cut(pixel_BHWC: torch.Tensor, window: Window) -> torch.Tensor:
    height, width = pixel_BHWC.shape[1:3]
    step_S = torch.arange(window.size, device=pixel_BHWC.device)
    y_BS = window.top_B[:, None] + step_S
    x_BS = window.left_B[:, None] + torch.where(window.flip_B[:, None], window.size - 1 - step_S, step_S)
    batch_B11 = torch.arange(len(pixel_BHWC), device=pixel_BHWC.device)[:, None, None]
    cut = pixel_BHWC[batch_B11, y_BS.clamp(0, height - 1)[:, :, None], x_BS.clamp(0, width - 1)[:, None, :]]
    inside_BSS = ((y_BS >= 0) & (y_BS < height))[:, :, None] & ((x_BS >= 0) & (x_BS < width))[:, None, :]
    if not bool(inside_BSS.all()):
        cut[~inside_BSS] = window.fill
    return cut
