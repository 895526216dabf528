"""`--compat paper-code`: the published code's own steps, oddities included (docs/method.md A and F), by scikit-learn.

Logistic regression by scikit-learn on the whole matrix, one GaussianMixture a class drawing its k-means start from one
seeded random stream, no clamping, no corner cases. What the published code cannot do (a class without samples, with
one, or with equal scores stops it) is refused here by name. Memory is N × D + N × C: meant for comparison, not scale.
"""

from __future__ import annotations

import warnings

import numpy as np

from cleanctl.errors import InputError
from cleanctl.records import ClassPosterior, EmbeddingBlocks
from cleanctl.score.blocks import Float32Blocks, PosteriorWriter


def sklearn_posterior(blocks: EmbeddingBlocks, label_N: np.ndarray, *, num_classes: int) -> ClassPosterior:
    """scikit-learn 1.2's LogisticRegression(random_state=0, max_iter=10000, class_weight="balanced") scored on its
    training rows."""
    import torch
    from cleanctl_kernels.zeroshot import stats_of_probabilities
    from sklearn.linear_model import LogisticRegression

    image_ND = np.empty((blocks.num_rows, blocks.dim))  # float64, to which scikit-learn 1.2 converts
    for rows, image in Float32Blocks(blocks, cache_bytes=0):
        image_ND[rows] = image.numpy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # Since version 1.5 `tol` bounds the gradient of the mean, no longer of the sum; balanced weights add up to N.
        model = LogisticRegression(
            random_state=0, max_iter=10_000, class_weight="balanced", tol=1e-4 / len(label_N)
        ).fit(image_ND, label_N)
    prob_NC = np.zeros((len(label_N), num_classes))
    prob_NC[:, model.classes_] = model.predict_proba(image_ND)
    writer = PosteriorWriter(len(label_N))
    labels = torch.from_numpy(label_N.astype(np.int64))
    writer.put(slice(0, len(label_N)), stats_of_probabilities(torch.from_numpy(prob_NC), labels))
    return writer.posterior


def sklearn_loss(
    log_p_label_N: np.ndarray, label_N: np.ndarray, *, num_classes: int, random: np.random.RandomState
) -> tuple[np.ndarray, np.ndarray]:
    """(posterior of the larger mean, scaled score), float32 (N,). `random` is the stream all classes draw from."""
    from sklearn.mixture import GaussianMixture

    posterior_N = np.empty(len(label_N), np.float32)
    scaled_N = np.empty(len(label_N), np.float32)
    for k in range(num_classes):
        row_M = np.flatnonzero(label_N == k)
        score_M = log_p_label_N[row_M]
        if len(row_M) < 2 or not np.isfinite(score_M).all() or score_M.min() == score_M.max():
            raise InputError(
                f"The published code stops at class {k}: {len(row_M)} samples, "
                f"{len(np.unique(score_M))} distinct scores.",
                do="Run without --compat paper-code, which handles such classes.",
            )
        scaled_M = (score_M - score_M.min()) / (score_M.max() - score_M.min())
        mixture = GaussianMixture(2, random_state=random).fit(scaled_M[:, None])
        scaled_N[row_M] = scaled_M
        clean = mixture.means_[:, 0].argmax()
        posterior_N[row_M] = mixture.predict_proba(scaled_M[:, None])[:, clean]
    return posterior_N, scaled_N
