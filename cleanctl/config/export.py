"""Options of `cleanctl export`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cleanctl.config.option import REQUIRED, Config, option, require_plain_name
from cleanctl.config.review import ignore_review_option
from cleanctl.config.shared import split_option
from cleanctl.errors import UsageError
from cleanctl.registry import TARGETS


@dataclass(frozen=True, kw_only=True)
class RuleFilter:
    """Samples that a rule keeps (`kept`) or drops."""

    rule: str
    kept: bool

    @classmethod
    def parse(cls, text: str) -> RuleFilter:
        rule, mark, word = text.partition("=")
        if not mark or word not in ("kept", "dropped"):
            raise UsageError(f"--rule is {text!r}.", do="Give RULE=kept or RULE=dropped, e.g. zeroshot.loss=dropped.")
        return cls(rule=rule, kept=word == "kept")


def _require_rule(option: str, text: str) -> None:
    RuleFilter.parse(text)


@dataclass(frozen=True, kw_only=True)
class ExportConfig(Config):
    out: Path = option(REQUIRED, "The file or folder to make; it must not exist.", flag="OUT")
    to: str = option(None, "What to write (default: csv where OUT ends so, else parquet).", known=TARGETS)
    selection: str | None = option(None, "The selection (default: the newest).", check=require_plain_name)
    split: str = split_option("The split to export.")
    take: Literal["kept", "dropped", "all"] | None = option(
        None, "Which samples, by the selection (default: kept; all with --to cleanlab).", "Filters"
    )
    classes: tuple[str, ...] = option((), "Given label, by name; may repeat.", "Filters", flag="--class")
    rules: tuple[str, ...] = option(
        (), "What a rule says, may repeat.", "Filters", flag="--rule", metavar="RULE=kept|dropped", check=_require_rule
    )
    match: str | None = option(None, "Text that the key contains.", "Filters")
    p_label_below: float | None = option(
        None, "Only where the given label's probability is lower.", "Filters", low=0, high=1
    )
    relabel: float | None = option(
        None,
        "Give the suggested label where another class has at least this probability, to dropped samples too.",
        "Labels",
        metavar="P",
        low=0,
        high=1,
    )
    ignore_review: bool = ignore_review_option()
    dry_run: bool = option(False, "Say what would be written; write nothing.", "Run")

    def preset_values(self) -> dict[str, Any]:
        return {"to": "csv" if self.out.suffix.lower() == ".csv" else "parquet"}
