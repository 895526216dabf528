"""A scorer as somebody else would write it, in one file: how near an image is to the mean of each class."""

from __future__ import annotations

import numpy as np
import torch
from cleanctl_kernels.zeroshot import stats_of_logits

from cleanctl.score.mechanisms import SHARED, RuleResult
from cleanctl.score.scorer import Scorer


def sure(score, label_N, config):
    """Kept where the second class has less than half of the first one's probability, and the label is the first."""
    score_N = score["p_label"] - score["p_second"]
    return RuleResult(score_N=score_N, keep_N=(score["suggested"] == label_N) & (score_N >= 0.5))


class Centroid(Scorer):
    name = "centroid"
    mechanisms = {**SHARED, "sure": sure}  # noqa: RUF012

    def parameters(self):
        return {"scale": 20}

    def fit(self, rows, reduce):
        sum_CD = torch.zeros(rows.num_classes, rows.blocks.dim, dtype=torch.float64)
        for part, image in rows.own_tiles():
            sum_CD.index_add_(0, torch.from_numpy(rows.own_labels[part]), image.double())
        sum_CD = reduce.sum(sum_CD)
        return (sum_CD / sum_CD.norm(dim=1, keepdim=True).clamp(min=1e-9)).float()

    def score(self, model, rows):
        absent_C = torch.from_numpy(np.bincount(rows.label_N, minlength=rows.num_classes) == 0)
        for part, image in rows.own_tiles():
            logit_BC = (20 * image @ model.T).masked_fill_(absent_C, -1e4)
            yield part, stats_of_logits(logit_BC, torch.from_numpy(rows.own_labels[part]))
