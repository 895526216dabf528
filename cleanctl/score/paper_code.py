"""`--compat paper-code`: the published code's own steps, deviations included (docs/method.md A and F), by scikit-learn.

Logistic regression by scikit-learn on the whole matrix, one GaussianMixture a class drawing its k-means start from one
seeded random stream, no clamping, no corner cases. What the published code cannot do (a class without samples, with
one, or with equal scores stops it) is refused here by name. Memory is N × D + N × C: meant for comparison, not scale.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from cleanctl_kernels.arrays import to_numpy

from cleanctl.errors import InputError
from cleanctl.score.knn import Knn
from cleanctl.score.logistic import Logistic
from cleanctl.score.scorer import Reduce, Rows, Scorer

if TYPE_CHECKING:
    from cleanctl_kernels import ClassStats


class PaperLogistic(Logistic):
    """scikit-learn 1.2's LogisticRegression(random_state=0, max_iter=10000, class_weight="balanced") scored on its
    training rows. Needs all rows in one process."""

    in_parts = False

    def fit(self, rows: Rows, reduce: Reduce) -> Any:
        from sklearn.linear_model import LogisticRegression

        assert reduce.parts == 1, "scikit-learn fits in one process"
        image_ND = np.empty((rows.blocks.num_rows, rows.blocks.dim))  # float64, to which scikit-learn 1.2 converts
        for part, image in rows.own_tiles(cache_bytes=0):
            image_ND[part] = to_numpy(image)
        # Since version 1.5 `tol` bounds the gradient of the mean, no longer of the sum; balanced weights add up to N.
        model = LogisticRegression(
            random_state=0, max_iter=10_000, class_weight="balanced", tol=1e-4 / len(rows.label_N)
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return model.fit(image_ND, rows.label_N)

    def score(self, model: Any, rows: Rows) -> Iterator[tuple[slice | np.ndarray, ClassStats]]:
        from cleanctl_kernels.zeroshot import stats_of_probabilities

        for part, image in rows.own_tiles(cache_bytes=0):
            prob_BC = np.zeros((len(image), rows.num_classes))
            prob_BC[:, model.classes_] = model.predict_proba(to_numpy(image).astype(np.float64))
            yield part, stats_of_probabilities(prob_BC, rows.own_labels[part])

    def ran(self, model: Any, rows: Rows) -> dict[str, Any]:
        return {"by": "scikit-learn's LogisticRegression (--compat paper-code)"}


class PaperKnn(Knn):
    """Each row votes for itself."""

    include_self = True


VARIANTS: dict[str, type[Scorer]] = {"logistic": PaperLogistic, "knn": PaperKnn}


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
