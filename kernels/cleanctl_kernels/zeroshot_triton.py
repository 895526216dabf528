# mypy: disallow-untyped-defs=False
"""The Triton kernel of `zeroshot_stats`: one pass over the prompts, an online reduction,
and nothing of size B × P or B × C.

A program owns ROWS images and walks over tiles of TILE_C classes × SLOTS prompts: matrix product, exponential, sum over
a class's slots, then the running total, best, second, Σ s ln s and the label's mass. Where masses could overflow
(FAR), all of them are relative to exp of a running row maximum. Runs on a CPU under TRITON_INTERPRET=1. Leaves nothing
on disk.

Images are float16, as the store holds them, and enter a product exactly. Text / τ is float32: as high + low, the
nearest float16 and the nearest of what is left, it takes two products on tensor cores, accumulated in float32, where
tf32 (11 bits of each text) takes as long and keeps less. With f an image, t a text, both of length 1:

    |t/τ - high - low|     ≤ 2⁻²² |t|/τ + 2⁻²⁵ an entry (the second where low is subnormal)
    |logit's error|        ≤ 2⁻²²/τ + 2⁻²⁵ √D  + float32's accumulation, ≤ 2⁻²³ · 2D/τ, mostly far less
    |error of ln P|        ≤ twice that: at τ = 0.07 and D = 512 1e-5 of the split, where 16-bit text alone has 1e-2.

The two are one product over 2 D columns: text lies as high 0…63, low 0…63, high 64…127, …, and each step of 64 columns
reads the images' 64 columns of its half again. That is the inner loop of a float16 GEMM with K = 2 D, one product a
step, which Triton keeps in flight while the next step's tiles arrive; two products a step on one tile of images read a
sixth less and are waited for in between (both compiled and read: `pendings = 0` against 1).

What bounds it, on an H100 (arithmetic, nothing was measured; dense float16 989 TFLOP/s, 132 SMs, L2 5.5 TB/s):
  work        4 B P D operations for 2 B P D useful ones. A step of 128 images × 256 prompts × 64 is 4.2 MFLOP for
              48 KiB out of L2: 85 FLOP/B, those of a GEMM with such tiles. To keep the images in shared memory over all
              tiles would make that 128, and take 128 KiB at D = 512, 256 KiB at D = 1024, of 227; Triton cannot index
              shared memory by a loop's counter. So every D, 512 to 1024, has the same tiles and four stages, 192 KiB.
  epilogue    a logit costs two additions and an exponential, a class about 30 operations: with 8 prompts a class some 7
              and 1.1 exponentials a logit, 0.12 clocks of an SM beside 0.67 of its tensor cores at D = 512 and 75 % of
              their peak. They take turns. Of one prompt a class the logarithm is the logit itself.
  expected    1 / (1 + 0.18) = 85 % of a Triton GEMM of K = 2 D with these tiles; if that has 85 % of cuBLAS, 70 %.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl

from cleanctl_kernels.prompts import PromptBank
from cleanctl_kernels.types import SAFE_EXPONENT, ClassStats

SHARED_BYTES = {90: 227 << 10, 80: 163 << 10}  # of one program, by architecture
OTHER_SHARED_BYTES = 99 << 10
SPARE_BYTES = 6 << 10  # of the reductions between warps
MAX_STAGES = 4


class Tile(NamedTuple):
    """rows: images of a program. prompts: of a step, at most. dims: of a step, of 16-bit numbers; of float32 half."""

    rows: int
    prompts: int
    dims: int


TILES = (Tile(128, 256, 64), Tile(128, 256, 32), Tile(128, 128, 64), Tile(64, 128, 64))


def zeroshot_stats_triton(
    image_BD: torch.Tensor, label_B: torch.Tensor, bank: PromptBank, *, tile: Tile | None = None
) -> ClassStats:
    """image_BD: float16, bfloat16 (text in two halves of that type), or float32 (products in tf32). A class has at most
    MAX_SLOTS prompts (zeroshot.py). tile: the first of TILES that fits the device."""
    batch, dim = image_BD.shape
    floats = torch.empty(5, batch, device=image_BD.device)
    suggested_B = torch.empty(batch, dtype=torch.int32, device=image_BD.device)
    plan = plan_of(bank, image_BD.dtype, tile)
    text_QD, bias_Q = text_of(bank, plan, image_BD.dtype)
    halves = halves_of(image_BD.dtype)
    if batch:
        _stats_kernel[(triton.cdiv(batch, plan.rows),)](
            image_BD.contiguous(),
            label_B.contiguous(),
            text_QD,
            bias_Q,
            floats,
            suggested_B,
            batch,
            dim,
            *text_QD.shape,
            FAR=bank.bound > SAFE_EXPONENT,
            EVEN=dim * halves == text_QD.shape[1],
            HALVES=halves,
            BLOCK_B=plan.rows,
            TILE_C=plan.tile_classes,
            SLOTS=bank.slots,
            # Triton's interpreter multiplies the bits of bfloat16 as integers; there the operands are widened first.
            WIDEN=image_BD.dtype == torch.bfloat16 and INTERPRETED,
            BLOCK_D=plan.block_dims,
            num_warps=plan.warps,
            num_stages=plan.stages,
            enable_fp_fusion=True,
        )
    p_label_B, p_max_B, p_second_B, entropy_B, log_p_label_B = floats
    return ClassStats(p_label_B, p_max_B, suggested_B, p_second_B, entropy_B, log_p_label_B)


class Plan(NamedTuple):
    """How a launch is cut; stages: steps over the dimensions that are under way at a time."""

    rows: int
    tile_classes: int
    block_dims: int
    warps: int
    stages: int


def plan_of(bank: PromptBank, dtype: torch.dtype, tile: Tile | None = None) -> Plan:
    """With `tile`, or the first of TILES of which two stages fit the device's shared memory."""
    limit = SHARED_BYTES.get(architecture(), OTHER_SHARED_BYTES) - SPARE_BYTES
    for rows, prompts, dims in TILES if tile is None else (tile,):
        block_dims = dims * 2 // dtype.itemsize
        wanted = 1 << (bank.num_classes * bank.slots - 1).bit_length()
        # 16: the least width of a matrix product; more than 128 classes do not fit a thread's registers
        width = max(16, min(prompts, wanted, 128 * bank.slots), bank.slots)
        step = block_dims * dtype.itemsize * (rows + width)
        stages = min(MAX_STAGES, limit // step)
        if stages >= 2:
            return Plan(rows, width // bank.slots, block_dims, 8 if rows * width >= 8192 else 4, stages)
    raise AssertionError(f"{tile or TILES[-1]} does not fit {limit} bytes")


def architecture() -> int:
    """90 of an H100; in the interpreter too."""
    return 90 if INTERPRETED else int(triton.runtime.driver.active.get_current_target().arch)


def halves_of(dtype: torch.dtype) -> int:
    return 1 if dtype == torch.float32 else 2


def text_of(bank: PromptBank, plan: Plan, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """(Q, halves · D') of the images' type, whose halves, in turn for every block_dims columns, add up to text / τ; D'
    a multiple of block_dims. And bias (Q,)."""
    key = plan.tile_classes, plan.block_dims, dtype
    if key not in bank.kept:
        text_QD, bias_Q = bank.tiled(plan.tile_classes)
        text_QD = torch.nn.functional.pad(text_QD, (0, -text_QD.shape[1] % plan.block_dims))
        halves = [half.view(len(half), -1, 1, plan.block_dims) for half in in_halves(text_QD, dtype)]
        bank.kept[key] = torch.cat(halves, dim=2).view(len(text_QD), -1).contiguous(), bias_Q
    return bank.kept[key]


def in_halves(values: torch.Tensor, dtype: torch.dtype) -> list[torch.Tensor]:
    """float32 as itself, or as high + low of a 16-bit type."""
    high = values.to(dtype)
    return [high] if halves_of(dtype) == 1 else [high, (values - high.float()).to(dtype)]


@triton.jit
def _logits(
    image_at,
    text_ptr,
    dim,
    text_dim,
    EVEN: tl.constexpr,
    HALVES: tl.constexpr,
    BLOCK_B: tl.constexpr,
    TILE_Q: tl.constexpr,
    WIDEN: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """(BLOCK_B, TILE_Q): the images that image_at points to, times the tile of text, without its bias."""
    d = tl.arange(0, BLOCK_D)
    text_at = tl.arange(0, TILE_Q)[None, :] * text_dim + d[:, None]
    logit = tl.zeros((BLOCK_B, TILE_Q), tl.float32)
    for start in range(0, text_dim, BLOCK_D):
        at = start // (HALVES * BLOCK_D) * BLOCK_D + d  # the images' columns
        if EVEN:
            image = tl.load(image_at + at[None, :])
        else:
            image = tl.load(image_at + at[None, :], mask=at[None, :] < dim, other=0.0)
        text = tl.load(text_ptr + start + text_at)
        if WIDEN:
            image = image.to(tl.float32)
            text = text.to(tl.float32)
        logit = tl.dot(image, text, logit)
    return logit


@triton.jit
def _log_given(logit, own, before):
    """ln of the mass of each row's label where the tile has it, else `before`. own: which columns are the label's."""
    own_logit = tl.where(own, logit, float("-inf"))
    high = tl.maximum(tl.max(own_logit, axis=1), -1.0e9)
    mass = tl.sum(tl.exp(own_logit - high[:, None]), axis=1)
    return tl.where(mass > 0, high + tl.log(tl.maximum(mass, 0.5)), before)


@triton.jit
def _best_two(s, first, k, best, second, index):
    """The highest mass so far, the second highest, and whose the highest is, with those of the tile from `first` on."""
    tile_best, tile_index = tl.max(s, axis=1, return_indices=True, return_indices_tie_break_left=True)
    tile_second = tl.max(tl.where(k[None, :] == tile_index[:, None], -1.0, s), axis=1)
    wins = tile_best > best  # strictly: on a tie the lower class index stays
    second = tl.where(wins, tl.maximum(best, tile_second), tl.maximum(second, tile_best))
    return tl.where(wins, tile_best, best), second, tl.where(wins, first + tile_index, index)


@triton.jit
def _masses(logit, BLOCK_B: tl.constexpr, SLOTS: tl.constexpr, TILE_C: tl.constexpr):
    """(BLOCK_B, TILE_C) each: Σ exp(logit) of a class's prompts, and its logarithm."""
    s = tl.sum(tl.reshape(tl.exp(logit), (BLOCK_B, SLOTS, TILE_C)), axis=1)
    if SLOTS == 1:
        log_s = tl.maximum(tl.reshape(logit, (BLOCK_B, TILE_C)), -1.0e9)  # of what fills up -inf, times 0
    else:
        # A literal below float32's smallest normal number, 1.2e-38, would make the sum fp64.
        log_s = tl.log(tl.maximum(s, 2e-38))
    return s, log_s


@triton.jit
def _store_stats(float_ptr, batch, row_ok, total, given, best, second, s_log_s, log_given):
    """The five numbers of each row, `batch` apart. total: Σ of all masses, by which the others are divided."""
    tl.store(float_ptr, given / total, mask=row_ok)
    tl.store(float_ptr + batch, best / total, mask=row_ok)
    tl.store(float_ptr + 2 * batch, second / total, mask=row_ok)
    entropy = tl.log(total) - s_log_s / total
    tl.store(float_ptr + 3 * batch, tl.maximum(entropy, 0.0), mask=row_ok)
    tl.store(float_ptr + 4 * batch, tl.minimum(log_given - tl.log(total), 0.0), mask=row_ok)


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
    prompts,
    text_dim,
    FAR: tl.constexpr,  # whether a mass can overflow or vanish in float32
    EVEN: tl.constexpr,  # whether dim is whole steps
    HALVES: tl.constexpr,
    BLOCK_B: tl.constexpr,
    TILE_C: tl.constexpr,
    SLOTS: tl.constexpr,
    WIDEN: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64) * BLOCK_B + tl.arange(0, BLOCK_B)
    row_ok = row < batch
    label = tl.load(label_ptr + row, mask=row_ok, other=0).to(tl.int32)
    # Rows behind the last are copies of it, and not stored: a mask on every load would cost registers.
    image_at = image_ptr + tl.minimum(row, batch - 1)[:, None] * dim
    TILE_Q: tl.constexpr = TILE_C * SLOTS
    column = tl.arange(0, TILE_Q)
    k = tl.arange(0, TILE_C)
    high = tl.full((BLOCK_B,), -1.0e4, tl.float32)
    total = tl.zeros((BLOCK_B,), tl.float32)
    s_log_s = tl.zeros((BLOCK_B,), tl.float32)
    best = tl.zeros((BLOCK_B,), tl.float32)
    second = tl.zeros((BLOCK_B,), tl.float32)
    given = tl.zeros((BLOCK_B,), tl.float32)
    log_given = tl.zeros((BLOCK_B,), tl.float32)
    index = tl.zeros((BLOCK_B,), tl.int32)
    first = 0  # class of the tile's first column
    for q in range(0, prompts, TILE_Q):
        logit = _logits(image_at, text_ptr, dim, text_dim, EVEN, HALVES, BLOCK_B, TILE_Q, WIDEN, BLOCK_D)
        logit += tl.load(bias_ptr + q + column)[None, :]
        if FAR:
            log_given = _log_given(logit, (first + column % TILE_C)[None, :] == label[:, None], log_given)
            # What was kept is relative to the old maximum: with s' = a s, Σ s' ln s' = a (Σ s ln s + ln a Σ s).
            fresh_high = tl.maximum(high, tl.max(logit, axis=1))
            log_a = high - fresh_high
            a = tl.exp(log_a)
            s_log_s = a * (s_log_s + log_a * total)
            total, given, best, second = a * total, a * given, a * best, a * second
            logit -= fresh_high[:, None]
            high = fresh_high
        s, log_s = _masses(logit, BLOCK_B, SLOTS, TILE_C)
        s_log_s += tl.sum(s * log_s, axis=1)
        total += tl.sum(s, axis=1)
        given += tl.sum(tl.where((first + k)[None, :] == label[:, None], s, 0.0), axis=1)
        best, second, index = _best_two(s, first, k, best, second, index)
        first += TILE_C
        text_ptr += TILE_Q * text_dim
    log_given = log_given - high if FAR else tl.log(given)
    _store_stats(float_ptr + row, batch, row_ok, total, given, best, second, s_log_s, log_given)
    tl.store(suggested_ptr + row, index, mask=row_ok)


INTERPRETED = not isinstance(_stats_kernel, triton.JITFunction)
