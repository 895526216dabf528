"""Two elementwise steps of a CLIP tower in half precision, each in one pass: layer norm with float32 statistics and
weights, and QuickGELU.

    layer_norm(x)_d = (x_d - mean) / sqrt(var + eps) · weight_d + bias_d          quick_gelu(x) = x · sigmoid(1.702 x)

PyTorch takes three passes for each (to float32 and back; scale, sigmoid, product). Both compute in float32 and round
once, by a Triton kernel on CUDA and by the plain formula elsewhere. No gradients. Leaves nothing on disk.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from cleanctl_kernels.paths import uses_triton
from cleanctl_kernels.types import QUICK_GELU_SLOPE

MOST_DIM = 8_192  # of a row that one program holds


def layer_norm(x_ND: torch.Tensor, weight_D: torch.Tensor, bias_D: torch.Tensor, *, eps: float) -> torch.Tensor:
    """x: (…, D) of any float type, contiguous; weight and bias float32. Returns the type of x."""
    if uses_triton(x_ND.device.type) and x_ND.shape[-1] <= MOST_DIM:
        from cleanctl_kernels.tower_triton import layer_norm_triton

        return layer_norm_triton(x_ND, weight_D, bias_D, eps=eps)
    return layer_norm_reference(x_ND, weight_D, bias_D, eps=eps)


def layer_norm_reference(
    x_ND: torch.Tensor, weight_D: torch.Tensor, bias_D: torch.Tensor, *, eps: float
) -> torch.Tensor:
    return F.layer_norm(x_ND.float(), x_ND.shape[-1:], weight_D, bias_D, eps).to(x_ND.dtype)


def quick_gelu(x: torch.Tensor) -> torch.Tensor:
    """Of any shape and float type."""
    if uses_triton(x.device.type):
        from cleanctl_kernels.tower_triton import quick_gelu_triton

        return quick_gelu_triton(x)
    return quick_gelu_reference(x)


def quick_gelu_reference(x: torch.Tensor) -> torch.Tensor:
    wide = x.float()
    return (wide * torch.sigmoid(QUICK_GELU_SLOPE * wide)).to(x.dtype)
