"""`gmm`: after every epoch a mixture of two Gaussians over all losses says who takes part (docs/method.md C.4).

DeFT's baseline. The mixture is one for all classes, unlike that of `select`. Legend: M readable training samples.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from cleanctl.train.methods.method import Batch, Members, View
from cleanctl.train.methods.plain import PlainMethod
from cleanctl.train.settings import MethodSettings

MAX_ITER, TOL, REG_COVAR = 10, 1e-2, 5e-4


@dataclass(frozen=True, kw_only=True)
class LossMixtureSettings(MethodSettings):
    warmup: Annotated[int, Field(ge=1, le=100_000, description="epochs on the selection before the first mixture")] = 1
    threshold: Annotated[float, Field(ge=0, lt=1, description="posterior of the lower component that is exceeded")] = (
        0.5
    )


class LossMixture(PlainMethod):
    """The first epochs train on the selection (`--selection all`: on everything, as published), the next on those whose
    loss belongs to the lower component."""

    Settings = LossMixtureSettings
    settings: LossMixtureSettings

    def loss(self, logit_BK: Tensor, batch: Batch) -> Tensor:
        return F.cross_entropy(logit_BK, batch.label_B)

    def end_epoch(self, view: View, members: Members, done: int) -> Members:
        if done < self.settings.warmup:
            return members
        loss_M = view.losses(self.predict, self.setup.label_M)
        clean_M = lower_component(loss_M, threshold=self.settings.threshold)
        joined = int((clean_M & ~self.setup.selected_M).sum())
        return Members(member_M=clean_M, label_M=members.label_M, absorbed=joined)


def lower_component(loss_M: np.ndarray, *, threshold: float) -> np.ndarray:
    """bool (M,): the posterior of the component of smaller mean is above `threshold`.

    loss_M: float32, NaN where there is none, which never takes part. Scaled to [0, 1] over all samples first. All of
    them take part where their losses are equal or fewer than two are known.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    known_M = np.isfinite(loss_M)
    loss = loss_M[known_M].astype(np.float64)
    out_M = known_M.copy()
    if len(loss) < 2 or loss.max() == loss.min():
        return out_M
    scaled = ((loss - loss.min()) / (loss.max() - loss.min())).reshape(-1, 1)
    mixture = GaussianMixture(2, max_iter=MAX_ITER, tol=TOL, reg_covar=REG_COVAR, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # ten iterations, as published
        mixture.fit(scaled)
    out_M[known_M] = mixture.predict_proba(scaled)[:, mixture.means_.argmin()] > threshold
    return out_M
