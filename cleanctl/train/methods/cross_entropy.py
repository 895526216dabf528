"""Cross-entropy on the selection as it is: the plain baseline, and the step that MixFix takes too."""

from __future__ import annotations

from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor

from cleanctl.train import augment
from cleanctl.train.methods.method import Batch, Method
from cleanctl.train.mixup import draw_lambda, mix, soft_cross_entropy


class CrossEntropy(Method):
    """Every member as often as the next, no mixup, no new members.

    `--mixup-beta` turns mixup back on, which is what the paper's own cross-entropy rows do (docs/method.md F.8).
    """

    options = frozenset(("mixup_beta",))
    fixed: ClassVar[dict[str, Any]] = {"sampler": "shuffled", "mixup_beta": 0.0, "absorb": False, "relabel": False}

    def step(self, batch: Batch) -> Tensor:
        """docs/method.md B.2.3: a strongly augmented batch, mixed with a permutation of itself, soft cross-entropy."""
        image = augment.strong(batch.image_BCLL, self.recipe, batch.rng)
        target = F.one_hot(batch.label_B, self.setup.num_classes).float()
        lam = draw_lambda(self.recipe.mixup_beta, batch.rng)
        partner = self.compute.tensor(batch.rng.permutation(len(image)))
        image, target = mix(image, target, lam, partner)
        loss = soft_cross_entropy(self.logits(image), target)
        self.update(loss)
        return loss.detach()


class Mixup(CrossEntropy):
    """Cross-entropy on the selection as it is, with the recipe's mixup."""

    fixed: ClassVar[dict[str, Any]] = {"sampler": "shuffled", "absorb": False, "relabel": False}
