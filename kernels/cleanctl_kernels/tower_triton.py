# mypy: disallow-untyped-defs=False
"""The Triton kernels of `tower.py`: a program normalises one row, or passes over one block of numbers.

Run on a CPU under TRITON_INTERPRET=1. Leaves nothing on disk.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from cleanctl_kernels.types import QUICK_GELU_SLOPE

BLOCK = 1024


def layer_norm_triton(x_ND: torch.Tensor, weight_D: torch.Tensor, bias_D: torch.Tensor, *, eps: float) -> torch.Tensor:
    x_ND = x_ND.contiguous()
    dim = x_ND.shape[-1]
    out_ND = torch.empty_like(x_ND)
    block = triton.next_power_of_2(dim)
    _layer_norm_kernel[(x_ND.numel() // dim,)](
        x_ND,
        weight_D,
        bias_D,
        out_ND,
        dim,
        eps,
        BLOCK=block,
        num_warps=8 if block > 2048 else 4,
        enable_fp_fusion=True,
    )
    return out_ND


def quick_gelu_triton(x: torch.Tensor) -> torch.Tensor:
    x = x.contiguous()
    out = torch.empty_like(x)
    _quick_gelu_kernel[(triton.cdiv(x.numel(), BLOCK),)](
        x, out, x.numel(), SLOPE=QUICK_GELU_SLOPE, BLOCK=BLOCK, enable_fp_fusion=True
    )
    return out


@triton.jit
def _layer_norm_kernel(x_ptr, weight_ptr, bias_ptr, out_ptr, dim, eps, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64) * dim
    at = tl.arange(0, BLOCK)
    ok = at < dim
    x = tl.load(x_ptr + row + at, mask=ok, other=0.0).to(tl.float32)
    mean = tl.sum(x, axis=0) / dim
    away = tl.where(ok, x - mean, 0.0)
    inverse = 1.0 / tl.sqrt(tl.sum(away * away, axis=0) / dim + eps)
    weight = tl.load(weight_ptr + at, mask=ok, other=0.0).to(tl.float32)
    bias = tl.load(bias_ptr + at, mask=ok, other=0.0).to(tl.float32)
    tl.store(out_ptr + row + at, (away * inverse * weight + bias).to(out_ptr.dtype.element_ty), mask=ok)


@triton.jit
def _quick_gelu_kernel(x_ptr, out_ptr, count, SLOPE: tl.constexpr, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    ok = at < count
    x = tl.load(x_ptr + at, mask=ok, other=0.0).to(tl.float32)
    value = x / (1.0 + tl.exp(-SLOPE * x))
    tl.store(out_ptr + at, value.to(out_ptr.dtype.element_ty), mask=ok)
