"""Prompts laid out by class for the zero-shot statistics, on any device.

Two layouts of the same text embeddings, each made once per run:
  `slab_DQ`   column j·C' + k is prompt j of class k, classes ordered by falling prompt count, so that pooling over
              prompts is an addition of contiguous slabs and needs no padding (CPU);
  `padded_QD` row k·M + j is prompt j of class k, M a power of two, unused rows zero with bias -inf (GPU).
1/τ is folded into both, log2(e) into the slabs, whose logits are to base 2, and ln(1/prompt count) of mean pooling
into the bias. Leaves nothing on disk.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

TILE_BYTES = 32 << 20  # logits that the CPU path holds at once


@dataclass(frozen=True, kw_only=True)
class PromptBank:
    """slab_widths: classes that have more than j prompts, for each j. class_order_C: slab position → class.

    inverse_order_C: class → slab position, None where the two are the same. log_weight_C: added to a class's pooled
    logarithm (0 for sum, -ln count for mean). bound: largest possible |logit|. scratch_BQ: where the CPU path holds
    logits; one for the run, since the system hands out fresh memory page by page. A bank serves one thread at a time.
    """

    num_classes: int
    slab_DQ: torch.Tensor
    slab_widths: tuple[int, ...]
    inverse_order_C: torch.Tensor | None
    weight_C: torch.Tensor | None
    padded_QD: torch.Tensor
    bias_Q: torch.Tensor
    slots: int
    bound: float
    scratch_BQ: torch.Tensor

    @property
    def num_prompts(self) -> int:
        return self.slab_DQ.shape[1]


def prompt_bank(
    text_PD: torch.Tensor,
    class_P: torch.Tensor,
    *,
    num_classes: int,
    temperature: float,
    pooling: str = "sum",
) -> PromptBank:
    """text_PD: float (P, D), L2-normalised. class_P: int, 0…C-1, every class present. pooling: sum or mean."""
    count_C = torch.bincount(class_P, minlength=num_classes)
    assert int(count_C.min()) > 0, "a class without prompts"
    scaled_PD = text_PD.float() / temperature
    order_C = torch.argsort(count_C, descending=True, stable=True)
    place_C = torch.argsort(order_C)
    rank_P = _rank_within_class(class_P, count_C)
    slab_order = torch.argsort(rank_P * num_classes + place_C[class_P])
    widths = tuple(int((count_C > j).sum()) for j in range(int(count_C.max())))
    log_weight_C = -torch.log(count_C.float()) if pooling == "mean" else torch.zeros_like(count_C.float())
    padded_QD, bias_Q, slots = _padded(scaled_PD, class_P, rank_P, log_weight_C, count_C)
    in_order = bool((place_C == torch.arange(num_classes, device=place_C.device)).all())
    return PromptBank(
        num_classes=num_classes,
        slab_DQ=(scaled_PD[slab_order] / math.log(2.0)).T.contiguous(),
        slab_widths=widths,
        inverse_order_C=None if in_order else place_C,
        weight_C=(1.0 / count_C.float()) if pooling == "mean" else None,
        padded_QD=padded_QD,
        bias_Q=bias_Q,
        slots=slots,
        scratch_BQ=scaled_PD.new_empty(max(1, TILE_BYTES // (4 * len(scaled_PD))), len(scaled_PD)),
        bound=float(scaled_PD.norm(dim=1).max()),
    )


def _rank_within_class(class_P: torch.Tensor, count_C: torch.Tensor) -> torch.Tensor:
    """(P,) which prompt of its class each prompt is: 0, 1, …"""
    order = torch.argsort(class_P, stable=True)
    first_C = torch.cumsum(count_C, 0) - count_C
    rank_P = torch.empty_like(order)
    rank_P[order] = torch.arange(len(order), device=order.device) - first_C[class_P[order]]
    return rank_P


def _padded(
    scaled_PD: torch.Tensor,
    class_P: torch.Tensor,
    rank_P: torch.Tensor,
    log_weight_C: torch.Tensor,
    count_C: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, int]:
    slots = 1 << (int(count_C.max()) - 1).bit_length()
    rows = len(count_C) * slots
    padded_QD = scaled_PD.new_zeros((rows, scaled_PD.shape[1]))
    bias_Q = scaled_PD.new_full((rows,), float("-inf"))
    where_P = class_P.long() * slots + rank_P
    padded_QD[where_P] = scaled_PD
    bias_Q[where_P] = log_weight_C[class_P.long()].to(bias_Q.dtype)
    return padded_QD, bias_Q, slots
