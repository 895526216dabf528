"""Options of `cleanctl review sample` and `cleanctl audit`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cleanctl.config.option import Config, option, require_plain_name
from cleanctl.config.shared import seed_option, split_option
from cleanctl.errors import UsageError

SAMPLE = "audit"
PAGES = (".html", ".htm", ".csv")


@dataclass(frozen=True, kw_only=True)
class ReviewSampleConfig(Config):
    """out: None is `cleanctl.audit.html` beside the store `cleanctl.zarr`, for the sample `audit`."""

    size: int = option(200, "How many labels a person is to look at.", low=20, high=100_000)
    selection: str | None = option(None, "The selection to check (default: the newest).", check=require_plain_name)
    split: str = split_option("The split that it was made from.")
    name: str = option(SAMPLE, "The sample's name.", check=require_plain_name)
    seed: int = seed_option(0)
    out: Path | None = option(
        None,
        "The page to look at (.html), or a list of keys (.csv) (default: STORE's name with .NAME.html, beside it).",
    )
    replace: bool = option(False, "Draw a sample of this name again, in place of the one that is there.", "Run")

    def refuse_contradictions(self) -> None:
        if self.out is not None and self.out.suffix.lower() not in PAGES:
            raise UsageError(f"--out is {str(self.out)!r}.", do="Name a file that ends in .html or .csv.")


@dataclass(frozen=True, kw_only=True)
class AuditConfig(Config):
    selection: str | None = option(
        None, "The selection to judge (default: the one that the sample was drawn for).", check=require_plain_name
    )
    sample: str = option(SAMPLE, "The sample whose verdicts count.", metavar="NAME", check=require_plain_name)
    split: str = split_option("The split that it was drawn from.")
    confidence: float = option(0.95, "Of each interval.", low=0.5, high=0.999)
