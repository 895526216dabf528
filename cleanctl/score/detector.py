"""The scorer `detector`: what positive and negative prompts learnt under label noise say (docs/method.md C.2).

`cleanctl adapt` writes its score: ClassPosterior's arrays of P = softmax z⁺, and

    p_clean      float32 in [0, 1], of the given label
    log_odds     float32, z⁺ − z⁻ of the given label: p_clean is its sigmoid, and it ranks where p_clean is 1 in float32
    clean_class  int32, argmax_k p_clean(k); only of detectors for which clean also means that it is the given label
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from cleanctl.score.mechanisms import SHARED, Mechanism, RuleResult, Score
from cleanctl.score.recorded import RecordedScorer

if TYPE_CHECKING:
    from cleanctl.config import SelectConfig


def dual(score: Score, label_N: np.ndarray, config: SelectConfig) -> RuleResult:
    """p_clean > 0.5, ranked by its log odds; of real-data detectors argmax_k p_clean(k) = y too."""
    keep_N = score["log_odds"] > 0
    if "clean_class" in score:
        keep_N &= score["clean_class"] == label_N
    return RuleResult(score_N=score["log_odds"], keep_N=keep_N, posterior_N=score["p_clean"])


class Detector(RecordedScorer):
    name = "detector"
    mechanisms: ClassVar[Mapping[str, Mechanism]] = {"dual": dual, **SHARED}
    evidence = 3
    written_by = "cleanctl adapt"
