"""What `select` returns."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from cleanctl.results.result import Result

ONE_WAY = 0.25  # the lesser direction of a confused pair, as a share of the greater, below which it goes one way


@dataclass(frozen=True, kw_only=True)
class ClassSummary:
    """count: readable samples labelled so. noise: estimated share with a wrong label, None where it is not known."""

    name: str
    count: int
    kept: int
    topped_up: int
    noise: float | None

    @property
    def share(self) -> float:
        return self.kept / self.count if self.count else 0.0


@dataclass(frozen=True, kw_only=True)
class RuleSummary:
    rule: str
    kept: int
    details: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class ScoreSummary:
    """score: its name in the store. ran: `by` in words; for kNN by IVF also `cells`, `probes` and measured `recall`."""

    scorer: str
    score: str
    device: str
    ran: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class ConfusedPair:
    """About `samples` of those labelled `given` are likely `likely`."""

    given: str
    likely: str
    samples: float


@dataclass(frozen=True, kw_only=True)
class ConfusionCounts:
    """About samples[i] of those labelled class given[i] are of class likely[i], by falling count, the diagonal
    included; the largest of the `pairs` there are. Class numbers are places in `classes`."""

    given: tuple[int, ...]
    likely: tuple[int, ...]
    samples: tuple[float, ...]
    pairs: int


@dataclass(frozen=True, kw_only=True)
class Transition:
    """Of true class true[i], a share rate[i] is labelled given[i]: about samples[i]; by falling samples, the diagonal
    included. Class numbers are places in `classes`."""

    true: tuple[int, ...]
    given: tuple[int, ...]
    samples: tuple[float, ...]
    rate: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What joint expects of the selection. precision: share of the kept labels that are right; precision_low,
    precision_high: where it lies in 95 of 100 cases, None without verdicts. recall: share of the
    right labels that are kept. verdicts: how many recalibrated it. class_conditional: whether the noise looks as joint
    assumes, None where that cannot be told. look_first: keys of the first labels that a person should look at.
    """

    precision: float | None
    precision_low: float | None
    precision_high: float | None
    recall: float | None
    noise: float
    assumes: str
    verdicts: int
    class_conditional: bool | None
    budget: int
    budget_wrong: float | None
    look_first: tuple[str, ...]
    transition: Transition


@dataclass(frozen=True, kw_only=True)
class Reviewed:
    """People's verdicts that the selection obeyed: so many keep, drop, relabel. newly_kept, newly_dropped: of them,
    that changed what the strategy decided. idle: which verdicts do not hold and why, in words. contradictions: images.
    """

    keep: int
    drop: int
    relabel: int
    newly_kept: int
    newly_dropped: int
    idle: str
    contradictions: int


@dataclass(frozen=True, kw_only=True)
class SelectionSummary(Result):
    """count: readable rows; failed: rows without an embedding, which no selection keeps.

    kept counts samples by their given label, those that people gave another one too. review: None where nobody decided
    anything, or with --ignore-review. votes: samples that 0, 1, … of the rules used keep. suggested_other: samples
    whose suggested label is not the given.
    """

    name: str
    strategy: str
    split: str
    count: int
    kept: int
    failed: int
    noise: float | None
    evidence: str
    classes: tuple[ClassSummary, ...]
    scores: tuple[ScoreSummary, ...]
    rules: tuple[RuleSummary, ...]
    votes: tuple[int, ...]
    suggested_other: int
    confused: tuple[ConfusedPair, ...]
    confusion: ConfusionCounts
    deviations: tuple[str, ...]
    parameters: dict[str, Any]
    out: str | None
    expected: Expected | None = None
    review: Reviewed | None = None

    @property
    def sentence(self) -> str:
        """What a person repeats: how many labels look wrong, how many are kept, and what is taken for what most."""
        kept = f"{self.kept:,} kept"
        if self.noise is None:
            return f"Of {self.count:,} labels {kept}."
        wrong = self.noise * self.count
        if wrong < 0.5:
            return f"Of {self.count:,} labels none looks wrong; {kept}."
        parts = [f"Of {self.count:,} labels about {_rounded(wrong):,} look wrong", kept]
        pair = self._most_confused()
        return "; ".join([*parts, pair] if pair else parts) + "."

    def _most_confused(self) -> str:
        """`mostly a ↔ b` where the pair has half of what looks wrong, else `most often a ↔ b`; `b labelled a` where it
        goes one way. Empty where nothing is confused."""
        pairs: dict[tuple[int, int], float] = {}
        for given, likely, samples in zip(self.confusion.given, self.confusion.likely, self.confusion.samples):
            if given != likely:
                pairs[given, likely] = samples
        both = {pair: samples + pairs.get(pair[::-1], 0.0) for pair, samples in pairs.items()}
        if not both or max(both.values()) < 1:
            return ""
        first, second = max(both, key=lambda pair: (both[pair], pairs[pair]))
        there, back = pairs[first, second], pairs.get((second, first), 0.0)
        if back >= there * ONE_WAY:
            said = " ↔ ".join(self.classes[k].name for k in sorted((first, second)))
        else:
            said = f"{self.classes[second].name} labelled {self.classes[first].name}"
        return f"{'mostly' if 2 * both[first, second] >= sum(pairs.values()) else 'most often'} {said}"


def _rounded(value: float) -> int:
    """To three digits."""
    return round(value / (unit := 10 ** max(math.floor(math.log10(value)) - 2, 0))) * unit
