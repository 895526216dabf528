"""What a selection is told to have done: its arrays and what made them → SelectionSummary. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from cleanctl.config import SelectConfig
from cleanctl.results import (
    ClassSummary,
    ConfusedPair,
    ConfusionCounts,
    RuleSummary,
    ScoreSummary,
    SelectionSummary,
)
from cleanctl.score.compute import Needed
from cleanctl.score.mechanisms import RuleResult
from cleanctl.selection.noise import Confusion
from cleanctl.selection.paper_code import DEVIATIONS
from cleanctl.strategy import Rule

TOP_PAIRS = 20
CONFUSION_PAIRS = 10_000  # all of 100 classes; of more classes the largest counts


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """What was chosen among the M readable rows. added: class → samples that the fallback gave it. failed: rows without
    an embedding. evidence: the scorer that `suggested_M` is from."""

    name: str
    split: str
    label_M: np.ndarray
    keep_M: np.ndarray
    votes_M: np.ndarray
    suggested_M: np.ndarray
    added: dict[int, int]
    failed: int
    evidence: str


def summarise(
    chosen: Chosen,
    confusion: Confusion,
    results: Mapping[Rule, RuleResult],
    scores: Mapping[Needed, dict[str, Any]],
    classes: tuple[str, ...],
    config: SelectConfig,
) -> SelectionSummary:
    """scores: each score that was read → its stored attributes."""
    count_C = np.bincount(chosen.label_M, minlength=len(classes))
    known_C = np.isfinite(confusion.noise_C)
    noise = float(np.average(confusion.noise_C[known_C], weights=count_C[known_C])) if known_C.any() else None
    mixtures = {needed.scorer.name: made.get("mixture", {}) for needed, made in scores.items() if needed.extra is None}
    return SelectionSummary(
        name=chosen.name,
        strategy=config.strategy,
        split=chosen.split,
        count=len(chosen.keep_M),
        kept=int(chosen.keep_M.sum()),
        failed=chosen.failed,
        noise=noise,
        evidence=chosen.evidence,
        classes=_by_class(chosen, confusion, count_C, classes),
        scores=tuple(
            ScoreSummary(
                scorer=needed.title,
                score=needed.stored_name,
                device=str(made.get("device", "")),
                ran=dict(made.get("ran", {})),
            )
            for needed, made in scores.items()
        ),
        rules=tuple(
            RuleSummary(
                rule=rule.name,
                kept=int(result.keep_N.sum()),
                details=mixtures[rule.scorer] if rule.mechanism == "loss" else {},
            )
            for rule, result in results.items()
        ),
        votes=tuple(np.bincount(chosen.votes_M, minlength=len(results) + 1).tolist()),
        suggested_other=int((chosen.suggested_M != chosen.label_M).sum()),
        confused=tuple(
            ConfusedPair(given=classes[given], likely=classes[likely], samples=round(samples, 1))
            for given, likely, samples in confusion.off_diagonal(TOP_PAIRS)
        ),
        confusion=_counts(confusion),
        deviations=DEVIATIONS if config.compat else (),
        parameters=config.as_json() | {"temperature": _temperature(scores)},
        out=None,
    )


def _temperature(scores: Iterable[Needed]) -> float | None:
    """The number that the prompts' probabilities were computed at; None where none were."""
    used = [needed.scorer.config.temperature for needed in scores if needed.scorer.uses_text]
    return float(used[0]) if used and used[0] is not None else None


def _by_class(
    chosen: Chosen, confusion: Confusion, count_C: np.ndarray, classes: tuple[str, ...]
) -> tuple[ClassSummary, ...]:
    kept_C = np.bincount(chosen.label_M[chosen.keep_M], minlength=len(classes))
    return tuple(
        ClassSummary(
            name=classes[k],
            count=int(count_C[k]),
            kept=int(kept_C[k]),
            topped_up=chosen.added.get(k, 0),
            noise=float(confusion.noise_C[k]) if np.isfinite(confusion.noise_C[k]) else None,
        )
        for k in range(len(classes))
    )


def _counts(confusion: Confusion) -> ConfusionCounts:
    shown = slice(CONFUSION_PAIRS)
    return ConfusionCounts(
        given=tuple(confusion.given_E[shown].tolist()),
        likely=tuple(confusion.likely_E[shown].tolist()),
        samples=tuple(np.round(confusion.count_E[shown], 1).tolist()),
        pairs=len(confusion.given_E),
    )
