"""What `demo` returns."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from cleanctl.results.result import Result


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
    report: str
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def mixfix_wins(self) -> bool:
        return self.mixfix > self.cross_entropy

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "mixfix_wins": self.mixfix_wins}
