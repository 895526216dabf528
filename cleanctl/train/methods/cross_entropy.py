"""Cross-entropy on the selection as it is: the plain baseline, and the step that MixFix takes too."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from cleanctl.train.methods.method import Batch, Method
from cleanctl.train.mixup import draw_lambda, mix, one_hot, soft_cross_entropy


class CrossEntropy(Method):
    """Every member as often as the next, no mixup, no new members.

    `--mixup-beta` turns mixup back on, which is what the paper's own cross-entropy rows do (docs/method.md F.8).
    """

    options = frozenset(("mixup_beta",))
    fixed: ClassVar[dict[str, Any]] = {"sampler": "shuffled", "mixup_beta": 0.0, "absorb": False, "relabel": False}

    def step(self, batch: Batch) -> Tensor:
        """docs/method.md B.2.3: a strongly augmented batch, mixed with a permutation of itself, soft cross-entropy."""
        image = batch.strong(self.recipe)
        image, target = mixed(self, image, batch.label_B, batch.rng)
        loss = soft_cross_entropy(self.logits(image), target)
        self.update(loss)
        return loss.detach()


def mixed(method: Method, image_BCSS: Tensor, label_B: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Images and one-hot labels float32 (B, K), mixed by the recipe's β with a permutation of themselves."""
    target = one_hot(label_B, method.setup.num_classes)
    lam = draw_lambda(method.recipe.mixup_beta, rng)
    partner = method.compute.tensor(rng.permutation(len(image_BCSS)))
    return mix(image_BCSS, target, lam, partner)


class Mixup(CrossEntropy):
    """Cross-entropy on the selection as it is, with the recipe's mixup."""

    fixed: ClassVar[dict[str, Any]] = {"sampler": "shuffled", "absorb": False, "relabel": False}
