"""Options of `cleanctl review apply`, `list` and `remove`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cleanctl.config.option import REQUIRED, Config, option
from cleanctl.config.shared import require_split_name, split_option
from cleanctl.errors import UsageError

ReviewedWord = Literal["keep", "drop", "relabel", "skip"]


def ignore_review_option() -> Any:
    return option(False, "Take no notice of people's verdicts in the store (cleanctl review).", "Review")


@dataclass(frozen=True, kw_only=True)
class ReviewApplyConfig(Config):
    files: tuple[Path, ...] = option(
        REQUIRED, "Files of verdicts: JSON of the review page, or tables with key and verdict.", flag="FILE"
    )
    split: str | None = option(None, "The split that they are about (default: as they say).", check=require_split_name)
    prefer: str | None = option(
        None,
        "Which verdict counts where some contradict each other: the latest, the stored one, or that of a FILE.",
        metavar="latest|stored|FILE",
    )
    dry_run: bool = option(False, "Say what would be stored; store nothing.", "Run")


@dataclass(frozen=True, kw_only=True)
class ReviewListConfig(Config):
    split: str = split_option("The split that the verdicts are about.")
    verdict: ReviewedWord | None = option(None, "Only these verdicts.", "Filters")
    by: str | None = option(None, "Only those of this person.", "Filters", metavar="NAME")
    match: str | None = option(None, "Text that the key contains.", "Filters")
    contradictions: bool = option(False, "Only images on which people contradict each other.", "Filters")
    history: bool = option(False, "Every line of the log, those that were replaced too.", "Filters")
    limit: int = option(50, "Most verdicts to show; --out writes all.", "Run", low=0, high=10**9)


@dataclass(frozen=True, kw_only=True)
class ReviewRemoveConfig(Config):
    keys: tuple[str, ...] = option(REQUIRED, "Keys of the images whose verdicts are taken back.", flag="KEY")
    split: str = split_option("The split that the verdicts are about.")
    by: str = option("", "Who takes them back.", metavar="NAME")

    def refuse_contradictions(self) -> None:
        if "" in self.keys:
            raise UsageError("KEY is empty.", do="Name images by their keys: cleanctl review list shows them.")
