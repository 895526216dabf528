"""What `eval` returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cleanctl.results.result import Result


@dataclass(frozen=True, kw_only=True)
class Confusion:
    """Mistakes by pair of classes, the most frequent first: samples[i] of class actual[i] were called predicted[i].

    Class numbers are places in `EvalReport.classes`. Right answers are not among them, nor those without a prediction.
    """

    actual: tuple[int, ...]
    predicted: tuple[int, ...]
    samples: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """Shares in [0, 1] of `count` samples; top5 is None below six classes. per_class: class → its top-1, NaN-free.

    seen: class → its samples. confusion: None where it was not counted.
    """

    count: int
    top1: float | None
    top5: float | None
    per_class: tuple[float | None, ...]
    seen: tuple[int, ...] = ()
    confusion: Confusion | None = None


@dataclass(frozen=True, kw_only=True)
class Detection:
    """Of `count` samples, `clean` have a right label and `kept` were kept. Rates in [0, 1]; None where undefined."""

    count: int
    clean: int
    kept: int
    precision: float | None
    recall: float | None
    f1: float | None

    @classmethod
    def of(cls, keep_N: Any, clean_N: Any) -> Detection:
        """Of two bool arrays (N,): global precision, recall and F1 = 2PR/(P+R) (docs/method.md C.2)."""
        hits, kept, clean = int((keep_N & clean_N).sum()), int(keep_N.sum()), int(clean_N.sum())
        return cls(
            count=len(keep_N),
            clean=clean,
            kept=kept,
            precision=hits / kept if kept else None,
            recall=hits / clean if clean else None,
            f1=2 * hits / (kept + clean) if kept + clean else None,
        )


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
    """noise: share of the known labels that are wrong as they were given, in [0, 1]. found: with people's verdicts, as
    many as `verdicts`, and the labels that they gave; rules are judged without."""

    name: str
    split: str
    noise: float
    found: Detection
    rules: tuple[RuleQuality, ...]
    verdicts: int = 0


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

    On that split the accuracy flatters (docs/method.md F.26). against: "truth" or "labels".
    """

    run: str
    method: str
    selection: str
    checkpoint: str
    epoch: int
    chosen_on: str | None
    split: str
    against: str
    accuracy: Accuracy


@dataclass(frozen=True, kw_only=True)
class EvalReport(Result):
    classes: tuple[str, ...]
    selection: SelectionQuality | None
    zero_shot: tuple[ZeroShotAccuracy, ...]
    runs: tuple[RunAccuracy, ...]
    notes: tuple[str, ...]
