"""What `review sample` and `audit` return."""

from __future__ import annotations

from dataclasses import dataclass

from cleanctl.results.result import Result


@dataclass(frozen=True, kw_only=True)
class SampleStratum:
    """Labels that are all kept or all dropped, of neighbouring scores. size: how many; looks: of them to look at.
    low, high: of the score. Each of its labels has the chance looks / size to be drawn."""

    kept: bool
    size: int
    looks: int
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class ReviewSample(Result):
    """score: what the strata are cut by. known: drawn labels that people decided already. out: the page or the list.
    images: how many images the page shows."""

    name: str
    split: str
    selection: str
    score: str
    size: int
    labels: int
    seed: int
    known: int
    strata: tuple[SampleStratum, ...]
    out: str
    images: int


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """value: None where no look tells it. low <= value <= high."""

    value: float | None
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class AuditStratum:
    """Labels of a stratum that the selection keeps, or drops, and what looks at some of them found."""

    kept: bool
    size: int
    right: int
    wrong: int
    undecided: int


@dataclass(frozen=True, kw_only=True)
class AuditReport(Result):
    """looks = right + wrong + undecided; of the `drawn` labels the others, `waiting`, were not looked at yet.

    noise: wrong labels of all `labels`. precision: right ones of those kept, None where nothing is kept. recall: of the
    right labels those that are kept. undecided counts against each limit. assumes: in words. without_verdicts: labels
    that people decided otherwise than the selection's rules; it is judged as it was before them.
    """

    selection: str
    split: str
    sample: str
    confidence: float
    labels: int
    kept: int
    drawn: int
    looks: int
    right: int
    wrong: int
    undecided: int
    waiting: int
    noise: Estimate
    precision: Estimate | None
    recall: Estimate
    strata: tuple[AuditStratum, ...]
    assumes: str
    without_verdicts: int
