"""Each rule: what a scorer says of the samples → a score and a yes or no.

In: ClassPosterior and labels. Out: score and keep (N,). Higher scores always mean cleaner. Pure.

    loss         posterior of the class's clean mixture component ≥ θ_gmm; computed in `cleanctl.score.mixture`
    consistency  P(y) / max_k P(k) ≥ θ_consistency
    match        the most probable class is the given one; the score is P(y) - highest P of another class
    similarity   cosine to the nearest prompt of the given label ≥ θ_similarity (zero-shot only)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cleanctl.records import ClassPosterior


@dataclass(frozen=True, kw_only=True)
class RuleResult:
    """score_N float32, the value that is compared with the threshold; keep_N bool.

    raw_N: for `loss` ln P(y) before scaling, for the others the score; the better one to rank samples of all classes.
    """

    score_N: np.ndarray
    keep_N: np.ndarray
    raw_N: np.ndarray


def consistency(posterior: ClassPosterior, theta: float) -> RuleResult:
    """c = P(y) / max P in [0, 1]; c is 1 exactly where the given label is (one of) the most probable."""
    score_N = posterior.p_label / np.maximum(posterior.p_max, np.float32(1e-30))
    return RuleResult(score_N=score_N, keep_N=score_N >= np.float32(theta), raw_N=score_N)


def match(posterior: ClassPosterior, label_N: np.ndarray) -> RuleResult:
    """Margin in [-1, 1]; on an exact tie the lower class index is the arg max, and the other label does not match."""
    keep_N = posterior.suggested == label_N
    score_N = np.where(keep_N, posterior.p_label - posterior.p_second, posterior.p_label - posterior.p_max)
    return RuleResult(score_N=score_N, keep_N=keep_N, raw_N=score_N)


def loss(p_label_N: np.ndarray, clean_posterior_N: np.ndarray, theta: float) -> RuleResult:
    """clean_posterior_N: float32 in [0, 1], see `loss_scores`."""
    raw_N = np.log(np.maximum(p_label_N, np.float32(1e-12))).astype(np.float32)
    return RuleResult(score_N=clean_posterior_N, keep_N=clean_posterior_N >= np.float32(theta), raw_N=raw_N)


def similarity(cosine_N: np.ndarray, theta: float) -> RuleResult:
    """cosine_N: float32 in [-1, 1]."""
    return RuleResult(score_N=cosine_N, keep_N=cosine_N >= np.float32(theta), raw_N=cosine_N)
