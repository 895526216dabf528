"""What the zero-shot classifier says of each image: (B, D) images × a PromptBank → six numbers a row.

    s(i, k) = Σ_j exp(⟨f_i, t_kj⟩ / τ),   P(k | i) = s(i, k) / Σ_k' s(i, k')                     (docs/method.md A.3)

`zeroshot_stats` takes the fast path of the device that holds the images: a Triton kernel with an online reduction on
CUDA (neither B × P nor B × C ever exists), else blocked matrix products with in-place exponentials, in numpy on a CPU.
`zeroshot_stats_reference` is the plain formula that both are tested against. Leaves nothing on disk.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from cleanctl_kernels.arrays import (
    Array,
    as_array_like,
    at_least_,
    at_most_,
    device_type,
    logsumexp,
    namespace,
    numbers,
    pick,
    put,
)
from cleanctl_kernels.paths import uses_triton
from cleanctl_kernels.prompts import PromptBank
from cleanctl_kernels.types import SAFE_EXPONENT, ClassStats

TINY = 2.0**-126  # float32's smallest normal number
MAX_SLOTS = 256  # prompts of one class, rounded up to a power of two, that fit one tile of the Triton kernel


def zeroshot_stats(image_BD: Array, label_B: Array, bank: PromptBank) -> ClassStats:
    """image_BD: float16/bfloat16/float32, L2-normalised. label_B: int64, 0…C-1. On one device with the bank."""
    if uses_triton(device_type(image_BD)) and bank.slots <= MAX_SLOTS:
        from cleanctl_kernels.zeroshot_triton import zeroshot_stats_triton

        return zeroshot_stats_triton(image_BD, label_B, bank)
    return zeroshot_stats_blocked(image_BD, label_B, bank)


def zeroshot_stats_reference(image_BD: Array, label_B: Array, bank: PromptBank) -> ClassStats:
    """The definition, in float64, holding B × P."""
    xp = namespace(image_BD)
    log_p_BC = class_logits(image_BD, bank, dtype=xp.float64)
    log_p_BC -= logsumexp(log_p_BC, axis=1)[:, None]
    log_p_label_B = xp.astype(pick(log_p_BC, label_B), xp.float32)
    return stats_of_probabilities(xp.exp(log_p_BC), label_B)._replace(log_p_label=log_p_label_B)


def class_logits(image_BD: Array, bank: PromptBank, *, nearest: bool = False, dtype: Any = None) -> Array:
    """(B, C) ln s(i, k), or with `nearest` the class's largest logit, less ln of its prompts for mean pooling. Holds
    B × P. float32 unless told."""
    xp = namespace(image_BD)
    logit_BCM = _logits(image_BD, bank, xp.float32 if dtype is None else dtype)
    return xp.max(logit_BCM, axis=2) if nearest else logsumexp(logit_BCM, axis=2)


def pooled_and_nearest(image_BD: Array, bank: PromptBank) -> tuple[Array, Array]:
    """(B, C) ln s(i, k) and the logit of the class's nearest prompt alone, float32, of one product; holds B × P."""
    xp, slabs = namespace(image_BD), bank.slabs
    logit_BQ = xp.astype(image_BD, xp.float32, copy=False) @ slabs.text_DQ
    ends = np.cumsum(slabs.widths).tolist()
    parts = [logit_BQ[:, end - width : end] for end, width in zip(ends, slabs.widths)]
    high_BC = xp.asarray(parts[0], copy=True)
    for part_BW in parts[1:]:
        width = part_BW.shape[1]
        high_BC[:, :width] = xp.maximum(high_BC[:, :width], part_BW)
    total_BC = xp.zeros_like(high_BC)
    for part_BW in parts:
        width = part_BW.shape[1]
        part_BW -= high_BC[:, :width]
        total_BC[:, :width] += xp.exp(part_BW, out=part_BW)
    pooled_BC = xp.log(total_BC, out=total_BC)
    pooled_BC += high_BC
    if slabs.place_C is not None:
        pooled_BC, high_BC = pooled_BC[:, slabs.place_C], high_BC[:, slabs.place_C]
    if slabs.weight_C is not None:
        pooled_BC += xp.log(slabs.weight_C)
    return pooled_BC, high_BC


def _logits(image_BD: Array, bank: PromptBank, dtype: Any) -> Array:
    """(B, C, slots), -inf where a class has no more prompts."""
    xp = namespace(image_BD)
    image_BD, text_QD, bias_Q = (xp.astype(one, dtype, copy=False) for one in (image_BD, bank.padded_QD, bank.bias_Q))
    logit_BQ = image_BD @ text_QD.T
    logit_BQ += bias_Q
    return xp.reshape(logit_BQ, (len(image_BD), bank.num_classes, bank.slots))


def stats_of_probabilities(prob_BC: Array, label_B: Array) -> ClassStats:
    """prob_BC: rows that sum to 1; consumed (the highest entry of each row is overwritten)."""
    xp = namespace(prob_BC)
    p_label_B = pick(prob_BC, label_B)
    log_BC = at_least_(xp.asarray(prob_BC, copy=True), TINY)
    entropy_B = -xp.linalg.vecdot(prob_BC, xp.log(log_BC, out=log_BC), axis=1)
    p_max_B, best_B, p_second_B = _highest_two(prob_BC)

    def single(values: Array) -> Array:
        return xp.astype(values, xp.float32)

    return ClassStats(
        p_label=single(p_label_B),
        p_max=single(p_max_B),
        suggested=xp.astype(best_B, xp.int32),
        p_second=single(p_second_B),
        entropy=single(entropy_B),
        log_p_label=single(_log(p_label_B)),
    )


def stats_of_logits(logit_BC: Array, label_B: Array) -> ClassStats:
    """logit_BC: float32, finite, of any scale; consumed. P is their softmax."""
    xp = namespace(logit_BC)
    logit_BC -= xp.max(logit_BC, axis=1, keepdims=True)
    own_B = pick(logit_BC, label_B)
    mass_BC = xp.exp(logit_BC, out=logit_BC)
    log_total_B = xp.log(xp.sum(mass_BC, axis=1))
    return stats_of_masses(mass_BC, label_B)._replace(log_p_label=at_most_(own_B - log_total_B, 0.0))


def zeroshot_stats_blocked(image_BD: Array, label_B: Array, bank: PromptBank) -> ClassStats:
    """Tiles of rows: one matrix product, exponentials in place, slabs added, reductions.

    The tiles lie in a buffer of the bank's, since the system hands out fresh memory page by page.
    """
    xp = namespace(image_BD)
    rows, prompts = bank.tile_rows, bank.num_prompts
    try:
        buffer_BQ = bank.spare.pop()  # threads may share a bank
    except IndexError:
        buffer_BQ = xp.empty((rows, prompts), dtype=xp.float32, device=image_BD.device)
    parts = []
    for start in range(0, max(len(image_BD), 1), rows):
        image, label = image_BD[start : start + rows], label_B[start : start + rows]
        parts.append(_tile(xp.astype(image, xp.float32, copy=False), label, bank, buffer_BQ[: len(image)]))
    bank.spare.append(buffer_BQ)
    return parts[0] if len(parts) == 1 else ClassStats(*(xp.concat(column) for column in zip(*parts)))


def _tile(image_BD: Array, label_B: Array, bank: PromptBank, out_BQ: Array) -> ClassStats:
    xp, slabs = namespace(image_BD), bank.slabs
    xp.matmul(image_BD, slabs.text_DQ, out=out_BQ)
    far = bank.bound > SAFE_EXPONENT
    if far:
        out_BQ -= xp.max(out_BQ, axis=1, keepdims=True)
        log_own_B = _log_mass_of(out_BQ, label_B, bank)
    s_BC = _pooled(xp.exp(out_BQ, out=out_BQ), bank)
    if slabs.place_C is not None:
        s_BC = s_BC[:, slabs.place_C]
    if slabs.weight_C is not None:
        s_BC *= slabs.weight_C
    if not far:
        return stats_of_masses(s_BC, label_B)
    log_total_B = xp.log(xp.sum(s_BC, axis=1))
    return stats_of_masses(s_BC, label_B)._replace(log_p_label=at_most_(log_own_B - log_total_B, 0.0))


def _log_mass_of(logit_BQ: Array, label_B: Array, bank: PromptBank) -> Array:
    """(B,) ln s(i, label): from the logits, since a mass e⁻¹⁰⁴ of the largest is 0 in float32."""
    xp, slabs = namespace(logit_BQ), bank.slabs
    place_B = label_B if slabs.place_C is None else slabs.place_C[label_B]
    width = np.array(slabs.widths)
    width_J, first_J = as_array_like(width, logit_BQ), as_array_like(np.cumsum(width) - width, logit_BQ)
    column_BJ = xp.minimum(place_B[:, None], width_J - 1) + first_J
    own_BJ = logit_BQ[numbers(logit_BQ)[:, None], column_BJ]
    own_BJ[place_B[:, None] >= width_J] = -float("inf")
    log_B = logsumexp(own_BJ, axis=1)
    return log_B if slabs.weight_C is None else log_B + xp.log(slabs.weight_C[label_B])


def _pooled(mass_BQ: Array, bank: PromptBank) -> Array:
    """(B, C'): each class's prompts added."""
    xp, widths = namespace(mass_BQ), bank.slabs.widths
    if len(set(widths)) == 1:
        return xp.sum(xp.reshape(mass_BQ, (len(mass_BQ), len(widths), bank.num_classes)), axis=1)
    s_BC = mass_BQ[:, : bank.num_classes]
    start = bank.num_classes
    for width in widths[1:]:
        s_BC[:, :width] += mass_BQ[:, start : start + width]
        start += width
    return s_BC


def stats_of_masses(s_BC: Array, label_B: Array) -> ClassStats:
    """s_BC: unnormalised, not negative; consumed. Saves the division of B × C."""
    xp = namespace(s_BC)
    total_B = xp.sum(s_BC, axis=1)
    # Σ p ln p = (Σ s ln s) / T - ln T
    log_s_BC = at_least_(xp.asarray(s_BC, copy=True), TINY)
    xp.log(log_s_BC, out=log_s_BC)
    entropy_B = xp.log(total_B) - xp.linalg.vecdot(s_BC, log_s_BC, axis=1) / total_B
    p_label_B = pick(s_BC, label_B) / total_B
    best_B, index_B, second_B = _highest_two(s_BC)
    return ClassStats(
        p_label=p_label_B,
        p_max=best_B / total_B,
        suggested=xp.astype(index_B, xp.int32),
        p_second=second_B / total_B,
        entropy=at_least_(entropy_B, 0.0),
        log_p_label=_log(p_label_B),
    )


def _highest_two(x_BC: Array) -> tuple[Array, Array, Array]:
    """Highest entry, the lowest index it has, second highest; the highest is overwritten by 0."""
    xp = namespace(x_BC)
    index_B = xp.argmax(x_BC, axis=1)
    best_B = pick(x_BC, index_B)
    put(x_BC, index_B, 0.0)
    return best_B, index_B, xp.max(x_BC, axis=1)


def _log(p_B: Array) -> Array:
    """ln, -inf of 0 without a warning."""
    with np.errstate(divide="ignore"):
        return namespace(p_B).log(p_B)
