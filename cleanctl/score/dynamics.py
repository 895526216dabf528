"""The scorer `dynamics`: how a label fared while a network was trained on it, as `train --record-dynamics` saw it.

Arrays of its stored score beside those of every other: `margin`, the logit of the given label less the highest of the
other classes, averaged over the epochs (area under the margin); `variance` of it over the epochs; `forgotten`, how many
times the label was predicted after one epoch and no longer after the next. ln P(label) is averaged over the epochs too,
which the rule `loss` reads; P and the suggested class are those after the last epoch. A network learns right labels
first and wrong ones by heart, so averages over early epochs tell them apart. Nothing on disk.

Source: G. Pleiss, T. Zhang, E. Elenberg, K. Weinberger, Identifying mislabeled data using the area under the margin
ranking, NeurIPS 2020.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from cleanctl.score.mechanisms import SHARED, Mechanism, RuleResult, Score
from cleanctl.score.recorded import RecordedScorer

if TYPE_CHECKING:
    from cleanctl.config import SelectConfig


def margin(score: Score, label_N: np.ndarray, config: SelectConfig) -> RuleResult:
    """Kept where the given label's logit was the highest on average: a margin of 0 or more."""
    score_N = score["margin"]
    return RuleResult(score_N=score_N, keep_N=score_N >= 0)


class Dynamics(RecordedScorer):
    name = "dynamics"
    mechanisms: ClassVar[Mapping[str, Mechanism]] = {"margin": margin, **SHARED}
    written_by = "cleanctl train --record-dynamics"
    evidence = 3
