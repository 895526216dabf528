"""Mixup inside a batch (docs/method.md B.2, step 3): one λ a batch, images and one-hot labels with a permutation."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


def draw_lambda(beta: float, rng: np.random.Generator) -> float:
    """λ = max(l, 1−l) with l ~ Beta(β, β), so in [0.5, 1]; 1 (no mixing) for β = 0."""
    if beta == 0:
        return 1.0
    draw = float(rng.beta(beta, beta))
    return max(draw, 1 - draw)


def one_hot(label_B: Tensor, num_classes: int) -> Tensor:
    """float32 (B, K). Torch's own checks the labels' range, which reads them back from where they lie."""
    return (label_B.unsqueeze(1) == torch.arange(num_classes, device=label_B.device)).float()


def mix(image_BCHW: Tensor, target_BK: Tensor, lam: float, partner_B: Tensor) -> tuple[Tensor, Tensor]:
    """λ·x + (1−λ)·x[partner], for the images and the target distributions alike. partner_B: int64 permutation."""
    if lam == 1.0:
        return image_BCHW, target_BK
    return (
        torch.lerp(image_BCHW[partner_B], image_BCHW, lam),
        torch.lerp(target_BK[partner_B], target_BK, lam),
    )


def soft_cross_entropy(logit_BK: Tensor, target_BK: Tensor) -> Tensor:
    """Mean over the batch of −Σ_k target·log softmax, in float32."""
    return -(target_BK * F.log_softmax(logit_BK.float(), dim=1)).sum(dim=1).mean()
