# mypy: disallow-untyped-defs=False
"""The Triton kernel of `softmax_residual`: a program owns some rows and passes over the classes twice, first for the
maximum, the mass and the target's logit, then to write the residual. The second reading finds most in the cache. Runs
on a CPU under TRITON_INTERPRET=1. Leaves nothing on disk.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

CLASSES, ROWS = 64, 64  # of a tile


def softmax_residual_triton(
    logit_KB: torch.Tensor, intercept_K: torch.Tensor, target_B: torch.Tensor, weight_B: torch.Tensor
) -> torch.Tensor:
    """As `softmax_residual`; rows of logit_KB lie one after the other in memory."""
    assert logit_KB.is_contiguous(), "the residual is written in place"
    classes, rows = logit_KB.shape
    loss_B = torch.empty(rows, device=logit_KB.device)
    _residual_kernel[(triton.cdiv(rows, ROWS),)](
        logit_KB,
        intercept_K,
        target_B.contiguous(),
        weight_B.contiguous(),
        loss_B,
        classes,
        rows,
        BLOCK_K=CLASSES,
        BLOCK_B=ROWS,
        num_warps=4,
        enable_fp_fusion=True,
    )
    return loss_B


@triton.jit
def _residual_kernel(
    logit_ptr,
    intercept_ptr,
    target_ptr,
    weight_ptr,
    loss_ptr,
    classes,
    rows,
    BLOCK_K: tl.constexpr,
    BLOCK_B: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64) * BLOCK_B + tl.arange(0, BLOCK_B)
    row_ok = row < rows
    target = tl.load(target_ptr + row, mask=row_ok, other=0)
    weight = tl.load(weight_ptr + row, mask=row_ok, other=0.0)
    high = tl.full((BLOCK_B,), -3.0e38, tl.float32)
    mass = tl.zeros((BLOCK_B,), tl.float32)
    own = tl.zeros((BLOCK_B,), tl.float32)
    for first in range(0, classes, BLOCK_K):
        k = first + tl.arange(0, BLOCK_K)
        k_ok = k < classes
        at = logit_ptr + k[:, None].to(tl.int64) * rows + row[None, :]
        z = tl.load(at, mask=k_ok[:, None] & row_ok[None, :], other=0.0)
        z += tl.load(intercept_ptr + k, mask=k_ok, other=0.0)[:, None]
        z = tl.where(k_ok[:, None], z, -3.0e38)
        fresh = tl.maximum(high, tl.max(z, axis=0))
        mass = mass * tl.exp(high - fresh) + tl.sum(tl.exp(z - fresh[None, :]), axis=0)
        own += tl.sum(tl.where(k[:, None] == target[None, :], z, 0.0), axis=0)
        high = fresh
    tl.store(loss_ptr + row, weight * (tl.log(mass) + high - own), mask=row_ok)
    scale = weight / mass
    for first in range(0, classes, BLOCK_K):
        k = first + tl.arange(0, BLOCK_K)
        ok = (k < classes)[:, None] & row_ok[None, :]
        at = logit_ptr + k[:, None].to(tl.int64) * rows + row[None, :]
        z = tl.load(at, mask=ok, other=0.0)
        z += tl.load(intercept_ptr + k, mask=k < classes, other=0.0)[:, None]
        residual = tl.exp(z - high[None, :]) * scale[None, :]
        residual -= tl.where(k[:, None] == target[None, :], weight[None, :], 0.0)
        tl.store(at, residual, mask=ok)
