"""What each verb returns: frozen records that the command line shows, or prints as JSON with `to_json()`.

Shares, rates and accuracies are in [0, 1], times in seconds; None says that a number is not known or not defined.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Result:
    """A verb's result."""

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return asdict(self)


# ---- embed, import


@dataclass(frozen=True, kw_only=True)
class SplitSummary:
    """Counts of one split; ok + failed = images.

    embedded: encoded (or imported) by this run. unchanged: settled by an earlier one. dropped: rows of the store whose
    file is gone from the source. seconds: loading, encoding and writing; packing too where it is the same pass.
    failures: a few of them.
    """

    split: str
    images: int
    ok: int
    failed: int
    embedded: int
    unchanged: int
    dropped: int = 0
    loader: str | None = None
    seconds: float = 0.0
    failures: tuple[tuple[str, str], ...] = ()  # (key, reason)

    @property
    def images_per_second(self) -> float | None:
        return self.embedded / self.seconds if self.embedded and self.seconds > 0 else None


@dataclass(frozen=True, kw_only=True)
class EmbedSummary(Result):
    """One run of `embed` or `import`. shard: I/N if it embedded one shard of the rows. complete: no row is pending."""

    store: Path
    splits: tuple[SplitSummary, ...]
    classes: int
    model: str
    prompts: str | None
    num_prompts: int
    prompts_embedded: bool
    dim: int
    device: str | None
    precision: str | None
    seconds: float
    shard: str | None = None
    complete: bool = True

    def to_json(self) -> dict[str, Any]:
        """JSON values; each split also carries images_per_second (None if nothing was embedded)."""
        splits = [
            {
                **asdict(split),
                "failures": [list(pair) for pair in split.failures],
                "images_per_second": split.images_per_second,
            }
            for split in self.splits
        ]
        return {**asdict(self), "store": str(self.store), "splits": splits}


@dataclass(frozen=True)
class Failure:
    """first_bytes: the type that they tell, or `missing` where there is no such file."""

    key: str
    reason: str
    first_bytes: str


@dataclass(frozen=True, kw_only=True)
class FailureKind:
    """How many images failed with one reason and one type of first bytes, with one key as an example."""

    reason: str
    first_bytes: str
    images: int
    example: str


@dataclass(frozen=True, kw_only=True)
class FailureReport(Result):
    """Every failed image of a store. tables: split → the Parquet file that lists them."""

    store: Path
    images: int
    failures: dict[str, list[Failure]]
    tables: dict[str, Path]

    @property
    def count(self) -> int:
        return sum(map(len, self.failures.values()))

    def kinds(self) -> list[FailureKind]:
        """The failures by reason and first bytes, most frequent first."""
        examples: dict[tuple[str, str], list[str]] = {}
        for failure in chain.from_iterable(self.failures.values()):
            examples.setdefault((failure.reason, failure.first_bytes), []).append(failure.key)
        kinds = [
            FailureKind(reason=reason, first_bytes=first_bytes, images=len(keys), example=keys[0])
            for (reason, first_bytes), keys in examples.items()
        ]
        return sorted(kinds, key=lambda kind: -kind.images)

    def to_json(self) -> dict[str, Any]:
        """JSON values: counts by kind, then every failure."""
        listed = [
            {"split": split, **asdict(failure)} for split, failures in self.failures.items() for failure in failures
        ]
        return {
            "store": str(self.store),
            "images": self.images,
            "failed": self.count,
            "kinds": [asdict(kind) for kind in self.kinds()],
            "tables": {split: str(path) for split, path in self.tables.items()},
            "failures": listed,
        }


# ---- select


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
class SelectionSummary(Result):
    """count: readable rows; failed: rows without an embedding, which no selection keeps.

    votes: samples that 0, 1, … of the rules used keep. suggested_other: samples whose suggested label is not the given.
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


# ---- train


@dataclass(frozen=True, kw_only=True)
class TrainResult(Result):
    """The outcome of a run. Accuracies in [0, 1] on `test_split`; None where the store has no such split.

    The best epoch is the one that was most accurate on `chosen_on`, a validation split where there is one. Where that
    is the test split itself, best_top1 flatters (docs/method.md F.26); last_top1 never does. `members`, `relabelled`
    and `label_accuracy` are those of the last epoch; label_accuracy is the share of members whose label in training
    was true, None where no truth is known.
    """

    name: str
    folder: str
    method: str
    selection: str
    recipe: str
    network: str
    device: str
    epochs: int
    test_split: str | None
    last_top1: float | None
    best_top1: float | None
    best_epoch: int | None
    selected: int
    members: int
    absorbed: int
    relabelled: int
    label_accuracy: float | None
    images_per_second: float
    seconds: float
    chosen_on: str | None = None  # None in the result of an earlier version too


# ---- eval


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


# ---- demo


@dataclass(frozen=True, kw_only=True)
class DemoResult(Result):
    """Rates and accuracies in [0, 1]. `precision` is the share of kept labels that are right, `recall` the share of
    right labels that are kept. Accuracies are top-1 on the clean test split, of the shipped encoder (zero_shot) and of
    the two networks after their last epoch: a best epoch would be picked by looking at it.
    """

    folder: str
    images: int
    kept: int
    wrong_labels: float
    precision: float
    recall: float
    zero_shot: float
    cross_entropy: float
    mixfix: float
    sheet: str
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def mixfix_wins(self) -> bool:
        return self.mixfix > self.cross_entropy

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "mixfix_wins": self.mixfix_wins}
