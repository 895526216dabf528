"""Each rule's evidence on each row: by what criterion it keeps, from which score on, and in words for one row.

Legend: N rows, C classes. Pure functions of a snapshot.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from cleanctl.errors import UsageError
from cleanctl.report.snapshot import Snapshot
from cleanctl.report.text import decimal
from cleanctl.store.stored import RuleColumns
from cleanctl.strategy import Leaf, Node, Not, parse

Config = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Kind:
    """What a mechanism compares with what. criterion: goes on after "keeps labels whose"; {0} is the threshold.

    value: what its number is called. threshold: of the selection's options; None where the mechanism has no number.
    """

    criterion: str
    value: str
    threshold: Callable[[Config], float | None]


def _option(name: str) -> Callable[[Config], float | None]:
    return lambda config: float(config[name]) if config.get(name) is not None else None


KINDS: Mapping[str, Kind] = {
    "loss": Kind(
        criterion="probability of belonging to the clean part of their class is at least {0:g}",
        value="clean part",
        threshold=_option("theta_gmm"),
    ),
    "consistency": Kind(
        criterion="probability is at least {0:g} of the most probable class's",
        value="of the highest",
        threshold=_option("theta_consistency"),
    ),
    "match": Kind(criterion="class is the most probable one", value="margin", threshold=lambda config: 0.0),
    "posterior": Kind(
        criterion="probability of being right is at least {0:g}",
        value="right",
        threshold=lambda config: None if config.get("keep_precision") else _option("theta_posterior")(config),
    ),
    "similarity": Kind(
        criterion="nearest prompt lies at a cosine of at least {0:g}",
        value="cosine",
        threshold=_option("theta_similarity"),
    ),
    "dual": Kind(
        criterion="clean prompt is nearer than the noisy one (probability above {0:g})",
        value="clean",
        threshold=lambda config: 0.5,
    ),
    **{
        name: Kind(criterion=f"image {words}", value="likeness", threshold=lambda config: None)
        for name, words in (
            ("exact", "has another with the same bytes"),
            ("duplicate", "is a copy of another that is left"),
            ("label", "has a copy with another label"),
            ("leak", "has a copy in another split"),
            ("placeholder", "is one of many copies under many labels"),
        )
    },
    "margin": Kind(
        criterion="logit was on average the highest while a network was trained",
        value="margin",
        threshold=lambda config: 0.0,
    ),
}
OTHER = Kind(criterion="score is at least {0:g}", value="score", threshold=lambda config: None)


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """One rule as the strategy uses it. number_N: float, what the threshold is compared with: the posterior where there
    is one, else the score. threshold: None where no one number decides. cut: lowest score that is kept, one for all or
    (C,) by class, NaN where keeping does not go by the score alone; None where it does so in no class.

    complement: the strategy says `~`, as `name` does then: keep_N holds where the rule does not, and there is no cut.
    """

    name: str
    mechanism: str
    kind: Kind
    score_N: np.ndarray
    keep_N: np.ndarray
    number_N: np.ndarray
    threshold: float | None
    cut: float | np.ndarray | None
    complement: bool = False

    @property
    def criterion(self) -> str:
        """In words, after "keeps labels whose"."""
        return f"evidence does not meet this: {self._condition()}" if self.complement else self._condition()

    def _condition(self) -> str:
        if self.threshold is None and "{0" in self.kind.criterion:
            return f"score is at least {decimal(self.cut)}" if isinstance(self.cut, float) else "score is high enough"
        return self.kind.criterion.format(self.threshold)

    def said(self, row: int) -> str:
        """What the rule found in one row, short: `logistic.loss: clean part 0.03 < 0.5`."""
        number = float(self.number_N[row])
        if self.threshold is None:
            return f"{self.name}: {self.kind.value} {decimal(number)}"
        sign = "≥" if number >= self.threshold else "<"
        return f"{self.name}: {self.kind.value} {decimal(number)} {sign} {self.threshold:g}"

    def distance(self) -> np.ndarray:
        """(N,) float in [0, 1]: how far each row is from the threshold, 1 where that is not known."""
        threshold = self.threshold if self.threshold is not None else self.cut
        number_N = self.number_N if self.threshold is not None else self.score_N
        if not isinstance(threshold, float):
            return np.ones(len(self.score_N))
        away_N = np.abs(number_N.astype(np.float64) - threshold)
        known_N = np.isfinite(away_N)
        largest = float(away_N[known_N].max(initial=0.0)) or 1.0
        return np.where(known_N, away_N / max(largest, 1.0), 1.0)


def evidence_of(snapshot: Snapshot) -> tuple[Evidence, ...]:
    """Of each rule that the selection used, in the order of its strategy."""
    try:
        turned = complements(parse(str(snapshot.selection.attributes.get("strategy", ""))))
    except UsageError:  # of a scorer that is not installed here
        turned = frozenset()
    return tuple(_of_rule(name, rule, snapshot, name in turned) for name, rule in snapshot.selection.rules.items())


def complements(node: Node) -> frozenset[str]:
    """Names of the rules that a strategy uses only below an odd number of `~`: what they hold of is dropped."""
    signs: set[tuple[str, bool]] = set()

    def walk(node: Node, turned: bool) -> None:
        if isinstance(node, Leaf):
            signs.add((node.rule.name, turned))
        elif isinstance(node, Not):
            walk(node.inner, not turned)
        else:
            for part in node.parts:
                walk(part, turned)

    walk(node, False)
    return frozenset(name for name, turned in signs if turned and (name, False) not in signs)


def _of_rule(name: str, rule: RuleColumns, snapshot: Snapshot, complement: bool) -> Evidence:
    mechanism = name.partition(".")[2]
    kind = KINDS.get(mechanism, OTHER)
    number_N = rule.score if rule.posterior is None else rule.posterior
    cut = cut_of(rule, snapshot.label_N, snapshot.ok_N, num_classes=len(snapshot.classes))
    return Evidence(
        name=f"~{name}" if complement else name,
        mechanism=mechanism,
        kind=kind,
        score_N=rule.score,
        keep_N=~rule.keep & snapshot.ok_N if complement else rule.keep,
        number_N=number_N,
        threshold=kind.threshold(snapshot.config),
        cut=None if complement else cut,
        complement=complement,
    )


def division(snapshot: Snapshot, evidence: tuple[Evidence, ...]) -> np.ndarray:
    """(N,) float: how divided the rules are over a row, from 0 (they agree) to 1 (half against half)."""
    share_N = sum((one.keep_N.astype(float) for one in evidence), np.zeros(len(snapshot))) / max(len(evidence), 1)
    return 4 * share_N * (1 - share_N)


def cut_of(rule: RuleColumns, label_N: np.ndarray, ok_N: np.ndarray, *, num_classes: int) -> float | np.ndarray | None:
    """The lowest kept score if every lower one is dropped: over all rows, else class by class, NaN where it is not so
    or nothing is kept; None where no class has one."""
    score_M, keep_M, label_M = rule.score[ok_N].astype(np.float64), rule.keep[ok_N], label_N[ok_N]
    lowest_kept = float(score_M[keep_M].min(initial=np.inf))
    if np.isfinite(lowest_kept) and lowest_kept > score_M[~keep_M].max(initial=-np.inf):
        return lowest_kept
    kept_C, dropped_C = np.full(num_classes, np.inf), np.full(num_classes, -np.inf)
    np.minimum.at(kept_C, label_M[keep_M], score_M[keep_M])
    np.maximum.at(dropped_C, label_M[~keep_M], score_M[~keep_M])
    cut_C = np.where(np.isfinite(kept_C) & (kept_C > dropped_C), kept_C, np.nan)
    return cut_C if np.isfinite(cut_C).any() else None


def sentence(snapshot: Snapshot, evidence: tuple[Evidence, ...], row: int) -> str:
    """Why one row was kept or dropped, e.g. `Dropped. Against: zeroshot.loss: clean part 0.03 < 0.5. For: …`."""
    if not snapshot.ok_N[row]:
        return f"Dropped: {snapshot.reasons.get(row, 'it could not be read')}."
    against = [one.said(row) for one in evidence if not one.keep_N[row]]
    favour = [one.said(row) for one in evidence if one.keep_N[row]]
    parts = ["Kept." if snapshot.selection.keep[row] else "Dropped."]
    parts += [f"Against: {'; '.join(against)}."] if against else []
    parts += [f"For: {'; '.join(favour)}."] if favour else []
    return " ".join(parts)
