"""The mechanisms that scorers share: a stored score and the labels → each sample's rank and a yes or no.

In: the score's arrays and labels, length N, and the thresholds. Out: score and keep (N,). Higher is cleaner. Pure.

    loss         score ln P(y); kept where the posterior of the class's clean mixture component ≥ θ_gmm
                 (`cleanctl.score.mixture`). The posterior alone ranks badly: it may fall as the score rises.
    consistency  P(y) / max_k P(k) ≥ θ_consistency
    match        the most probable class is the given one; the score is P(y) - highest P of another class
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cleanctl.score.mixture import finite_logs

if TYPE_CHECKING:
    from cleanctl.config import SelectConfig


@dataclass(frozen=True, kw_only=True)
class RuleResult:
    """score_N float32, ranks samples of all classes; keep_N bool.

    posterior_N: for `loss` the clean component's posterior, which is compared with θ_gmm; None for the others, whose
    score is compared itself.
    """

    score_N: np.ndarray
    keep_N: np.ndarray
    posterior_N: np.ndarray | None = None


Score = Mapping[str, np.ndarray]  # the arrays of a stored score: ClassPosterior's, `clean`, `scaled`
Mechanism = Callable[[Score, np.ndarray, "SelectConfig"], RuleResult]


def consistency(score: Score, label_N: np.ndarray, config: SelectConfig) -> RuleResult:
    """c = P(y) / max P in [0, 1]; c is 1 exactly where the given label is (one of) the most probable."""
    score_N = score["p_label"] / np.maximum(score["p_max"], np.float32(1e-30))
    return RuleResult(score_N=score_N, keep_N=score_N >= np.float32(config.theta_consistency))


def match(score: Score, label_N: np.ndarray, config: SelectConfig) -> RuleResult:
    """Margin in [-1, 1]; on an exact tie the lower class index is the arg max, and the other label does not match."""
    keep_N = score["suggested"] == label_N
    rival_N = np.where(keep_N, score["p_second"], score["p_max"])
    return RuleResult(score_N=score["p_label"] - rival_N, keep_N=keep_N)


def loss(score: Score, label_N: np.ndarray, config: SelectConfig) -> RuleResult:
    """The clean component's posterior, as fitted or corrected (--mixture-posterior), against θ_gmm."""
    clean_N = score["clean"]
    if config.mixture_posterior == "monotone":
        clean_N = monotone(clean_N, score["scaled"], label_N)
    keep_N = clean_N >= np.float32(config.theta_gmm)
    return RuleResult(score_N=finite_logs(score["log_p_label"]), keep_N=keep_N, posterior_N=clean_N)


def monotone(posterior_N: np.ndarray, scaled_N: np.ndarray, label_N: np.ndarray) -> np.ndarray:
    """(N,) float32: the clean posterior as its running maximum over rising scores in each class (docs/method.md A.7).

    With unequal variances the fitted posterior may fall again as the score rises; so mended, a higher score is never
    less trusted, and equal scores are trusted alike.
    """
    order_N = np.lexsort((posterior_N, scaled_N, label_N))
    # float64 holds a posterior beside its class's offset, which lifts it above all classes before.
    lifted_N = posterior_N[order_N] + 2.0 * label_N[order_N].astype(np.float64)
    risen_N = np.maximum.accumulate(lifted_N) - 2.0 * label_N[order_N]
    last_N = _last_of_equals(label_N[order_N], scaled_N[order_N])
    result_N = np.empty(len(order_N), np.float32)
    result_N[order_N] = risen_N[last_N]
    return result_N


def _last_of_equals(label_N: np.ndarray, scaled_N: np.ndarray) -> np.ndarray:
    """(N,) int64: for each place of a sorted run the last place with the same label and score."""
    starts_N = np.ones(len(label_N), bool)
    starts_N[1:] = (np.diff(label_N) != 0) | (np.diff(scaled_N) != 0)
    run_N = np.cumsum(starts_N) - 1
    return (np.append(np.flatnonzero(starts_N)[1:], len(label_N)) - 1)[run_N]


SHARED: Mapping[str, Mechanism] = {"loss": loss, "consistency": consistency, "match": match}
