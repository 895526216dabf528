"""A scorer as somebody else would write it, in one file: how near an image is to the mean of each class."""

from __future__ import annotations

import numpy as np
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
        def work(part, image):
            own_CB = np.arange(rows.num_classes)[:, None] == rows.own_labels[part]
            return own_CB.astype(np.float64) @ image

        sum_CD = np.zeros((rows.num_classes, rows.blocks.dim))
        for one_CD in rows.own_tiles().map(work):
            sum_CD += one_CD
        sum_CD = reduce.sum(sum_CD)
        return (sum_CD / np.maximum(np.linalg.norm(sum_CD, axis=1, keepdims=True), 1e-9)).astype(np.float32)

    def score(self, model, rows):
        absent_C = np.bincount(rows.label_N, minlength=rows.num_classes) == 0

        def work(part, image):
            logit_BC = np.where(absent_C, np.float32(-1e4), 20 * image @ model.T)
            return part, stats_of_logits(logit_BC, rows.own_labels[part])

        yield from rows.own_tiles().map(work)
