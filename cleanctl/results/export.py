"""What `export` returns."""

from __future__ import annotations

from dataclasses import dataclass

from cleanctl.results.result import Result


@dataclass(frozen=True, kw_only=True)
class ExportResult(Result):
    """samples: written, or that would be (dry_run). relabelled: of them, with the suggested label instead of the given.

    missing: left out because their file cannot be read any more. examples: names of a few entries as written.
    """

    to: str
    out: str
    split: str
    selection: str
    samples: int
    relabelled: int
    missing: int
    classes: int
    examples: tuple[str, ...]
    dry_run: bool
