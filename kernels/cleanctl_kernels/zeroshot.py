"""What the zero-shot classifier says of each image: (B, D) images × a PromptBank → six numbers a row.

    s(i, k) = Σ_j exp(⟨f_i, t_kj⟩ / τ),   P(k | i) = s(i, k) / Σ_k' s(i, k')                     (docs/method.md A.3)

`zeroshot_stats` takes the fast path of the device that holds the images: a Triton kernel with an online reduction on
CUDA (neither B × P nor B × C ever exists), blocked matrix products with in-place exponentials on a CPU.
`zeroshot_stats_reference` is the plain formula that both are tested against. Leaves nothing on disk.
"""

from __future__ import annotations

import math

import torch

from cleanctl_kernels.paths import uses_triton
from cleanctl_kernels.prompts import PromptBank
from cleanctl_kernels.types import SAFE_EXPONENT, ClassStats

TINY = torch.finfo(torch.float32).tiny
MAX_SLOTS = 256  # prompts of one class, rounded up to a power of two, that fit one tile of the Triton kernel


def zeroshot_stats(image_BD: torch.Tensor, label_B: torch.Tensor, bank: PromptBank) -> ClassStats:
    """image_BD: float16/bfloat16/float32, L2-normalised. label_B: int64, 0…C-1."""
    if uses_triton(image_BD.device.type) and bank.slots <= MAX_SLOTS:
        from cleanctl_kernels.zeroshot_triton import zeroshot_stats_triton

        return zeroshot_stats_triton(image_BD, label_B, bank)
    return zeroshot_stats_blocked(image_BD, label_B, bank)


def zeroshot_stats_reference(image_BD: torch.Tensor, label_B: torch.Tensor, bank: PromptBank) -> ClassStats:
    """The definition, in float64, holding B × P."""
    log_s_BC = class_logits(image_BD, bank, dtype=torch.float64)
    log_p_label_B = torch.log_softmax(log_s_BC, dim=1).gather(1, label_B.view(-1, 1)).squeeze(1)
    return stats_of_probabilities(torch.softmax(log_s_BC, dim=1), label_B)._replace(log_p_label=log_p_label_B.float())


def class_logits(
    image_BD: torch.Tensor, bank: PromptBank, *, nearest: bool = False, dtype: torch.dtype = torch.float32
) -> torch.Tensor:
    """(B, C) ln s(i, k), or with `nearest` the class's largest logit; holds B × P."""
    logit_BQ = image_BD.to(dtype) @ bank.padded_QD.to(dtype).T + bank.bias_Q.to(dtype)
    logit_BCM = logit_BQ.view(len(image_BD), bank.num_classes, bank.slots)
    return logit_BCM.amax(dim=2) if nearest else torch.logsumexp(logit_BCM, dim=2)


def stats_of_probabilities(prob_BC: torch.Tensor, label_B: torch.Tensor) -> ClassStats:
    """prob_BC: rows that sum to 1; consumed (the highest entry of each row is overwritten)."""
    entropy_B = torch.special.entr(prob_BC).sum(dim=1)
    p_label_B = prob_BC.gather(1, label_B.view(-1, 1)).squeeze(1)
    p_max_B, best_B = prob_BC.max(dim=1)
    prob_BC.scatter_(1, best_B.view(-1, 1), 0.0)
    return ClassStats(
        p_label=p_label_B.float(),
        p_max=p_max_B.float(),
        suggested=best_B.int(),
        p_second=prob_BC.amax(dim=1).float(),
        entropy=entropy_B.float(),
        log_p_label=p_label_B.log().float(),
    )


def stats_of_logits(logit_BC: torch.Tensor, label_B: torch.Tensor) -> ClassStats:
    """logit_BC: float32, finite, of any scale; consumed. P is their softmax."""
    logit_BC -= logit_BC.amax(dim=1, keepdim=True)
    own_B = logit_BC.gather(1, label_B.view(-1, 1)).squeeze(1)
    mass_BC = logit_BC.exp_()
    log_total_B = mass_BC.sum(dim=1).log_()
    return stats_of_masses(mass_BC, label_B)._replace(log_p_label=(own_B - log_total_B).clamp_max_(0.0))


def zeroshot_stats_blocked(image_BD: torch.Tensor, label_B: torch.Tensor, bank: PromptBank) -> ClassStats:
    """Tiles of rows that fit the bank's scratch: one matrix product, exponentials in place, slabs added, reductions."""
    rows = len(bank.scratch_BQ)
    parts = [
        _tile(image_tile.float(), label_tile, bank, bank.scratch_BQ[: len(image_tile)])
        for image_tile, label_tile in zip(image_BD.split(rows), label_B.split(rows))
    ]
    return ClassStats(*(torch.cat(column) for column in zip(*parts)))


def _tile(image_BD: torch.Tensor, label_B: torch.Tensor, bank: PromptBank, out_BQ: torch.Tensor) -> ClassStats:
    torch.mm(image_BD, bank.slab_DQ, out=out_BQ)
    far = bank.bound > SAFE_EXPONENT
    if far:
        out_BQ -= out_BQ.amax(dim=1, keepdim=True)
        log_own_B = _log_mass_of(out_BQ, label_B, bank)
    out_BQ.exp2_()  # the bank holds logits to base 2: twice as fast as exp
    s_BC = _pooled(out_BQ, bank)
    if bank.inverse_order_C is not None:
        s_BC = s_BC[:, bank.inverse_order_C]
    if bank.weight_C is not None:
        s_BC *= bank.weight_C
    if not far:
        return stats_of_masses(s_BC, label_B)
    log_total_B = s_BC.sum(dim=1).log_()
    return stats_of_masses(s_BC, label_B)._replace(log_p_label=(log_own_B - log_total_B).clamp_max_(0.0))


def _log_mass_of(log2_BQ: torch.Tensor, label_B: torch.Tensor, bank: PromptBank) -> torch.Tensor:
    """(B,) ln s(i, label): from the logits, since a mass e⁻¹⁰⁴ of the largest is 0 in float32."""
    place_B = label_B if bank.inverse_order_C is None else bank.inverse_order_C[label_B]
    width_J = torch.tensor(bank.slab_widths, device=label_B.device)
    column_BJ = torch.minimum(place_B[:, None], width_J - 1) + (width_J.cumsum(0) - width_J)
    own_BJ = log2_BQ.gather(1, column_BJ).masked_fill_(place_B[:, None] >= width_J, float("-inf"))
    log_B = torch.logsumexp(own_BJ * math.log(2.0), dim=1)
    return log_B if bank.weight_C is None else log_B + bank.weight_C[label_B].log()


def _pooled(mass_BQ: torch.Tensor, bank: PromptBank) -> torch.Tensor:
    """(B, C'): each class's prompts added."""
    if len(set(bank.slab_widths)) == 1:
        return mass_BQ.view(len(mass_BQ), len(bank.slab_widths), bank.num_classes).sum(dim=1)
    s_BC = mass_BQ[:, : bank.num_classes]
    start = bank.num_classes
    for width in bank.slab_widths[1:]:
        s_BC[:, :width] += mass_BQ[:, start : start + width]
        start += width
    return s_BC


def stats_of_masses(s_BC: torch.Tensor, label_B: torch.Tensor) -> ClassStats:
    """s_BC: unnormalised, not negative; consumed. Saves the division of B × C."""
    total_B = s_BC.sum(dim=1)
    # Σ p ln p = (Σ s ln s) / T - ln T
    log_s_BC = s_BC.clamp(min=TINY).log_()  # three times as fast as torch.special.entr
    entropy_B = total_B.log() - torch.linalg.vecdot(s_BC, log_s_BC) / total_B
    label = s_BC.gather(1, label_B.view(-1, 1)).squeeze(1)
    best, best_B = s_BC.max(dim=1)
    s_BC.scatter_(1, best_B.view(-1, 1), 0.0)
    second = s_BC.amax(dim=1)
    return ClassStats(
        p_label=label / total_B,
        p_max=best / total_B,
        suggested=best_B.int(),
        p_second=second / total_B,
        entropy=entropy_B.clamp_min_(0.0),
        log_p_label=(label / total_B).log_(),
    )
