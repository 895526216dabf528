"""The two losses of DeFT's first phase, for one batch (docs/method.md C.2).

In: image embeddings (B, D) with gradient where an image tower is tuned, the classes' positive and negative embeddings
(ClassText), given and complementary labels. Out: L_dp and L_sim with their gradients, and who is judged clean.

    z⁺_k = s⟨I, T⁺_k⟩      z⁻_k = s⟨sg(I), T⁻_k⟩      p_clean(k) = σ(sg(z⁺_k) − z⁻_k)
    L_dp  = mean −ln(1 − p_clean(ȳ)) + w · mean −ln p_clean(ỹ)      trains T⁻ alone
    L_sim = cross-entropy of z⁺ and y, over clean samples           trains T⁺ and the image tower alone

Pure; any float type. Dimensions: B samples, C classes, K classes of a batch, D joint space.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor
from torch.nn import functional

LEAST = 1e-5  # of a probability whose logarithm is taken
LEAST_SCE = 1e-7  # of a probability in SCE
LEAST_ONE_HOT = 1e-4  # of a zero in SCE's one-hot label


class ClassText(Protocol):
    """Where the classes' embeddings come from, L2-normalised, with gradient to what is learnt of them."""

    def positive(self) -> Tensor:
        """(C, D): T⁺ of every class."""
        ...

    def negative(self, class_K: Tensor) -> Tensor:
        """(K, D): T⁻ of some classes, int64."""
        ...


@dataclass(frozen=True, kw_only=True)
class Phase:
    """Which of the losses' forms an epoch uses.

    warmup: L_sim runs over all samples, by `warmup_loss` (SCE with α = β = 1 in the real-data scripts). pseudo: samples
    judged noisy take the current argmax_k z⁺_k as ỹ, else their label. agree: clean also demands argmax_k p_clean(k) =
    y. positive_weight: w of L_dp's second term; below 1 for heavy noise.
    """

    warmup: bool
    pseudo: bool
    warmup_loss: Literal["ce", "sce"] = "ce"
    agree: bool = False
    positive_weight: float = 1.0


@dataclass(frozen=True, kw_only=True)
class StepLosses:
    """Scalars with gradient, and what the batch was judged to be: clean_B bool, predicted_B int64 (argmax z⁺)."""

    dual: Tensor
    similarity: Tensor
    clean_B: Tensor
    predicted_B: Tensor

    @property
    def total(self) -> Tensor:
        return self.dual + self.similarity


def step_losses(
    image_BD: Tensor, text: ClassText, label_B: Tensor, complement_B: Tensor, *, scale: float, phase: Phase
) -> StepLosses:
    """image_BD: L2-normalised. label_B, complement_B: int64. scale: exp of CLIP's logit scale, frozen."""
    positive_BC = scale * image_BD @ text.positive().T
    with torch.no_grad():
        predicted_B = positive_BC.argmax(dim=1)
    fixed_BC, fixed_image_BD = positive_BC.detach(), image_BD.detach()
    wanted = [label_B, complement_B, *([predicted_B] if phase.pseudo else [])]
    if phase.agree:
        class_K = torch.arange(positive_BC.shape[1], device=label_B.device)
        place = wanted
    else:
        class_K, flat = torch.unique(torch.cat(wanted), return_inverse=True)
        place = list(flat.split(len(label_B)))
    odds_BK = fixed_BC[:, class_K] - scale * fixed_image_BD @ text.negative(class_K).T
    at = torch.arange(len(label_B), device=label_B.device)
    clean_B = judged_clean(odds_BK.detach()[at, place[0]])
    if phase.agree:
        clean_B &= odds_BK.detach().argmax(dim=1) == label_B
    target = torch.where(clean_B, place[0], place[2]) if phase.pseudo else place[0]
    return StepLosses(
        dual=dual_loss(odds_BK[at, place[1]], odds_BK[at, target], positive_weight=phase.positive_weight),
        similarity=similarity_loss(positive_BC, label_B, None if phase.warmup else clean_B, phase=phase),
        clean_B=clean_B,
        predicted_B=predicted_B,
    )


def judged_clean(odds_B: Tensor) -> Tensor:
    """bool (B,): p_clean > 0.5, where odds_B = z⁺ − z⁻ of the label, the log odds of p_clean."""
    return odds_B > 0


def dual_loss(complement_odds_B: Tensor, target_odds_B: Tensor, *, positive_weight: float = 1.0) -> Tensor:
    """L_dp from the log odds of p_clean(ȳ) and p_clean(ỹ); probabilities are cut to [1e-5, 1] as published."""
    noisy_B = torch.sigmoid(-complement_odds_B).clamp(LEAST, 1)
    clean_B = torch.sigmoid(target_odds_B).clamp(LEAST, 1)
    return -noisy_B.log().mean() - positive_weight * clean_B.log().mean()


def similarity_loss(logit_BC: Tensor, label_B: Tensor, clean_B: Tensor | None, *, phase: Phase) -> Tensor:
    """L_sim over the clean samples (None: all); zero, with a gradient of zero, where there are none (trap F.16)."""
    if clean_B is not None:
        logit_BC, label_B = logit_BC[clean_B], label_B[clean_B]
    if not len(label_B):
        return logit_BC.sum()  # of nothing
    loss = functional.cross_entropy(logit_BC, label_B)
    if phase.warmup and phase.warmup_loss == "sce":
        loss = loss + reverse_cross_entropy(logit_BC, label_B)
    return loss


def reverse_cross_entropy(logit_BC: Tensor, label_B: Tensor) -> Tensor:
    """SCE's second term, −Σ_k p_k ln q_k with q one-hot cut at 1e-4 and p at 1e-7 (docs/method.md C.4), mean over B."""
    prob_BC = functional.softmax(logit_BC, dim=1).clamp(LEAST_SCE, 1)
    one_hot_BC = functional.one_hot(label_B, logit_BC.shape[1]).to(prob_BC.dtype).clamp(LEAST_ONE_HOT, 1)
    return -(prob_BC * one_hot_BC.log()).sum(dim=1).mean()
