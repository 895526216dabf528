"""`cleanctl status`: what the store holds, what is stale and why, what to type next."""

from __future__ import annotations

from pathlib import Path

from cleanctl.cli.console import Run


def status(store: Path, run: Run) -> None:
    """Say what the store holds, what is stale and why, and what to type next.

    Reads only; computes nothing and loads no model.

    Examples

      cleanctl status
      cleanctl status --json | jq -r '.following[0]'
    """
    from cleanctl import api
    from cleanctl.cli.tables.status import status_tables

    report = api.status(store=store)
    run.result(report, shown=status_tables(report))
