"""Options of `cleanctl review apply`, `serve`, `list` and `remove`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cleanctl.config.option import REQUIRED, Config, option, require_plain_name
from cleanctl.config.shared import require_split_name, split_option
from cleanctl.errors import UsageError

ReviewedWord = Literal["keep", "drop", "relabel", "skip"]


def ignore_review_option() -> Any:
    return option(False, "Take no notice of people's verdicts in the store (cleanctl review).", "Review")


def require_person(flag: str, name: str) -> None:
    """UsageError unless `name` can stand beside a verdict."""
    if not name.isprintable() or len(name) > 200:
        raise UsageError(f"{flag} is {name!r:.60}.", do="Give a name of at most 200 printable characters.")


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
class ReviewServeConfig(Config):
    selection: str | None = option(None, "The selection to show (default: the newest).", check=require_plain_name)
    split: str = split_option("The split to review.")
    by: str = option("", "Your name, for verdicts whose page gives none.", metavar="NAME", check=require_person)
    port: int = option(0, "The port on this machine; 0 takes a free one.", "Run", low=0, high=65_535)
    open: bool = option(False, "Open the page in the browser.", "Run")


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
    by: str = option("", "Who takes them back.", metavar="NAME", check=require_person)

    def refuse_contradictions(self) -> None:
        if "" in self.keys:
            raise UsageError("KEY is empty.", do="Name images by their keys: cleanctl review list shows them.")
