"""`cleanctl export`: a selection → files that other tools read."""

from __future__ import annotations

from pathlib import Path

from cleanctl.cli.console import Run
from cleanctl.config import ExportConfig
from cleanctl.errors import UsageError


def export(config: ExportConfig | None, store: Path, run: Run) -> None:
    """Write a selection for other tools: tables, lists, folders, datasets of other libraries.

    Nothing is overwritten; what is written is whole or absent.

    Examples

      cleanctl export kept.parquet
      cleanctl export clean/ --to links --relabel 0.95
      cleanctl export doubtful.csv --take dropped --rule zeroshot.loss=dropped
      cleanctl export tars/ --to webdataset --dry-run
    """
    if config is None:
        raise UsageError(
            "OUT is missing.",
            do="Name the file or folder to make: cleanctl export kept.csv   (or with --to: folders, tars, datasets)",
        )
    from cleanctl import api
    from cleanctl.cli.tables.export import export_lines

    result = api.export(config, store=store, progress=run.progress)
    run.result(result, shown=export_lines(result))
