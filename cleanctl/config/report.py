"""Options of `cleanctl report`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cleanctl.config.option import Config, option, require_plain_name
from cleanctl.config.shared import split_option
from cleanctl.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class ReportConfig(Config):
    """out: None is `cleanctl.report.html` beside the store `cleanctl.zarr`."""

    out: Path | None = option(None, "The HTML file to write (default: STORE's name with .report.html, beside it).")
    selection: str | None = option(None, "The selection to show (default: the newest).", check=require_plain_name)
    split: str = split_option("The split to show.")
    against: str | None = option(
        None, "Another selection: shows what changed from it, and why.", metavar="NAME", check=require_plain_name
    )
    run: tuple[str, ...] = option((), "A training run to show, may repeat (default: all).", check=require_plain_name)
    images: Literal["inline", "folder"] = option(
        "inline", "Small images inside the file, or larger and more of them in a folder beside it."
    )

    def refuse_contradictions(self) -> None:
        if self.against is not None and self.against == self.selection:
            raise UsageError(
                f"--against {self.against!r} is the selection to show.", do="Name another one with --against."
            )
        if self.out is not None and self.out.suffix.lower() not in (".html", ".htm"):
            raise UsageError(f"--out is {str(self.out)!r}.", do="Name a file that ends in .html.")
