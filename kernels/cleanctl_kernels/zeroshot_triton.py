# mypy: disallow-untyped-defs=False
"""The Triton kernel of `zeroshot_stats`: one pass over the prompts, an online reduction,
and nothing of size B × P or B × C.

A program owns BLOCK_B images and walks over tiles of TILE_C classes × SLOTS prompts: matrix product, exp against a
running row maximum m, sum over a class's slots, then the running total, best, second, Σ s ln s and the label's mass,
all of them relative to exp(m). Runs on a CPU under TRITON_INTERPRET=1. Leaves nothing on disk.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from cleanctl_kernels.prompts import PromptBank
from cleanctl_kernels.types import SAFE_EXPONENT, ClassStats

TILE_PROMPTS = 128


def zeroshot_stats_triton(image_BD: torch.Tensor, label_B: torch.Tensor, bank: PromptBank) -> ClassStats:
    """image_BD: float16, bfloat16 or float32 (products in tf32); prompts are cast to the same type. A class has at most
    MAX_SLOTS prompts (zeroshot.py)."""
    batch, dim = image_BD.shape
    image_BD = image_BD.contiguous()
    text_QD = bank.padded_QD.to(image_BD.dtype)
    floats = torch.empty(5, batch, device=image_BD.device)
    suggested_B = torch.empty(batch, dtype=torch.int32, device=image_BD.device)
    tile_classes = max(1, TILE_PROMPTS // bank.slots)
    if tile_classes * bank.slots < 16:  # the least width of a matrix product
        tile_classes = 16 // bank.slots
    block_rows = 64
    _stats_kernel[(triton.cdiv(batch, block_rows),)](
        image_BD,
        label_B.contiguous(),
        text_QD,
        bank.bias_Q,
        floats,
        suggested_B,
        batch,
        dim,
        bank.num_classes,
        FAR=bank.bound > SAFE_EXPONENT,
        BLOCK_B=block_rows,
        TILE_C=tile_classes,
        SLOTS=bank.slots,
        # Triton's interpreter multiplies the bits of bfloat16 as integers; there the operands are widened first.
        WIDEN=image_BD.dtype == torch.bfloat16 and INTERPRETED,
        BLOCK_D=32 if image_BD.dtype == torch.float32 else 64,
        num_warps=8 if block_rows * tile_classes * bank.slots > 4096 else 4,
        enable_fp_fusion=True,
    )
    p_label_B, p_max_B, p_second_B, entropy_B, log_p_label_B = floats
    return ClassStats(p_label_B, p_max_B, suggested_B, p_second_B, entropy_B, log_p_label_B)


@triton.jit
def _stats_kernel(
    image_ptr,
    label_ptr,
    text_ptr,
    bias_ptr,
    float_ptr,
    suggested_ptr,
    batch,
    dim,
    classes,
    FAR: tl.constexpr,  # whether a mass can vanish in float32 beside the largest
    BLOCK_B: tl.constexpr,
    TILE_C: tl.constexpr,
    SLOTS: tl.constexpr,
    WIDEN: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64) * BLOCK_B + tl.arange(0, BLOCK_B)
    row_ok = row < batch
    label = tl.load(label_ptr + row, mask=row_ok, other=0)
    high = tl.full((BLOCK_B,), -1.0e4, tl.float32)
    total = tl.zeros((BLOCK_B,), tl.float32)
    s_log_s = tl.zeros((BLOCK_B,), tl.float32)
    best = tl.zeros((BLOCK_B,), tl.float32)
    second = tl.zeros((BLOCK_B,), tl.float32)
    given = tl.zeros((BLOCK_B,), tl.float32)
    log_given = tl.zeros((BLOCK_B,), tl.float32)
    index = tl.zeros((BLOCK_B,), tl.int32)
    for first in range(0, classes, TILE_C):
        prompt = first * SLOTS + tl.arange(0, TILE_C * SLOTS)
        prompt_ok = prompt < classes * SLOTS
        logit = tl.zeros((BLOCK_B, TILE_C * SLOTS), tl.float32)
        for start in range(0, dim, BLOCK_D):
            d = start + tl.arange(0, BLOCK_D)
            d_ok = d < dim
            image = tl.load(
                image_ptr + row[:, None] * dim + d[None, :], mask=row_ok[:, None] & d_ok[None, :], other=0.0
            )
            text = tl.load(
                text_ptr + prompt[None, :].to(tl.int64) * dim + d[:, None],
                mask=prompt_ok[None, :] & d_ok[:, None],
                other=0.0,
            )
            if WIDEN:
                image = image.to(tl.float32)
                text = text.to(tl.float32)
            logit = tl.dot(image, text, logit)
        logit += tl.load(bias_ptr + prompt, mask=prompt_ok, other=float("-inf"))[None, :]
        if FAR:
            own = tl.where((prompt // SLOTS)[None, :] == label[:, None], logit, float("-inf"))
            own_high = tl.maximum(tl.max(own, axis=1), -1.0e9)
            own_mass = tl.sum(tl.exp(own - own_high[:, None]), axis=1)
            log_given = tl.where(own_mass > 0, own_high + tl.log(tl.maximum(own_mass, 0.5)), log_given)
        fresh_high = tl.maximum(high, tl.max(logit, axis=1))
        mass = tl.exp(logit - fresh_high[:, None])
        s = tl.sum(tl.reshape(mass, (BLOCK_B, TILE_C, SLOTS)), axis=2)
        # Everything kept so far was relative to the old maximum: with s' = a s, Σ s' ln s' = a (Σ s ln s + ln a Σ s).
        log_a = high - fresh_high
        a = tl.exp(log_a)
        # A literal below float32's smallest normal number, 1.2e-38, would make the sum fp64.
        s_log_s = a * (s_log_s + log_a * total) + tl.sum(tl.where(s > 0, s * tl.log(tl.maximum(s, 2e-38)), 0.0), axis=1)
        total = a * total + tl.sum(s, axis=1)
        k = tl.arange(0, TILE_C)
        given = a * given + tl.sum(tl.where((first + k)[None, :] == label[:, None], s, 0.0), axis=1)
        tile_best = tl.max(s, axis=1)
        tile_index = tl.argmax(s, axis=1, tie_break_left=True)
        tile_second = tl.max(tl.where(k[None, :] == tile_index[:, None], -1.0, s), axis=1)
        best = a * best
        second = a * second
        wins = tile_best > best  # strictly: on a tie the lower class index stays
        second = tl.where(wins, tl.maximum(best, tile_second), tl.maximum(second, tile_best))
        index = tl.where(wins, (first + tile_index).to(tl.int32), index)
        best = tl.where(wins, tile_best, best)
        high = fresh_high
    tl.store(float_ptr + row, given / total, mask=row_ok)
    tl.store(float_ptr + batch + row, best / total, mask=row_ok)
    tl.store(float_ptr + 2 * batch + row, second / total, mask=row_ok)
    entropy = tl.log(total) - s_log_s / total
    tl.store(float_ptr + 3 * batch + row, tl.maximum(entropy, 0.0), mask=row_ok)
    if FAR:
        log_given = log_given - high
    else:
        log_given = tl.log(given)
    tl.store(float_ptr + 4 * batch + row, tl.minimum(log_given - tl.log(total), 0.0), mask=row_ok)
    tl.store(suggested_ptr + row, index, mask=row_ok)


INTERPRETED = not isinstance(_stats_kernel, triton.JITFunction)
