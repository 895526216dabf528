"""What `eval` returns."""

from __future__ import annotations

from dataclasses import dataclass

from cleanctl.results.result import Result


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """Shares in [0, 1] of `count` samples; top5 is None below six classes. per_class: class → its top-1, NaN-free."""

    count: int
    top1: float | None
    top5: float | None
    per_class: tuple[float | None, ...]


@dataclass(frozen=True, kw_only=True)
class Detection:
    """Of `count` samples, `clean` have a right label and `kept` were kept. Rates in [0, 1]; None where undefined."""

    count: int
    clean: int
    kept: int
    precision: float | None
    recall: float | None
    f1: float | None


@dataclass(frozen=True, kw_only=True)
class RuleQuality:
    """auc ranks all samples by the rule's score. Of loss rules, whose score is ln P(y), auc_raw is the same and
    auc_scaled ranks by ln P(y) scaled inside each class, which changes the AUC (docs/method.md A.8); else None.
    """

    rule: str
    found: Detection
    auc: float | None
    auc_raw: float | None = None
    auc_scaled: float | None = None


@dataclass(frozen=True, kw_only=True)
class SelectionQuality:
    """noise: share of the known labels that are wrong, in [0, 1]."""

    name: str
    split: str
    noise: float
    found: Detection
    rules: tuple[RuleQuality, ...]


@dataclass(frozen=True, kw_only=True)
class ZeroShotAccuracy:
    """against: "truth" or "labels". pooled: docs/method.md A.3's sum over prompts; nearest: the one nearest prompt."""

    split: str
    against: str
    pooled: Accuracy
    nearest: Accuracy


@dataclass(frozen=True, kw_only=True)
class RunAccuracy:
    """chosen_on: the split whose accuracy picked the epoch of checkpoint "best", None for "last".

    On that split the accuracy flatters (docs/method.md F.26).
    """

    run: str
    method: str
    selection: str
    checkpoint: str
    epoch: int
    chosen_on: str | None
    split: str
    accuracy: Accuracy


@dataclass(frozen=True, kw_only=True)
class EvalReport(Result):
    classes: tuple[str, ...]
    selection: SelectionQuality | None
    zero_shot: tuple[ZeroShotAccuracy, ...]
    runs: tuple[RunAccuracy, ...]
    notes: tuple[str, ...]
