"""`cleanctl review sample` and `cleanctl audit`: how good a selection is, from a few looks."""

from __future__ import annotations

from pathlib import Path

from cleanctl.cli.console import Run
from cleanctl.config import AuditConfig, ReviewSampleConfig


def sample(config: ReviewSampleConfig, store: Path, run: Run) -> None:
    """Draw the labels to look at so that cleanctl audit can tell how good a selection is.

    More of those that are kept or dropped with doubt are drawn, in known proportions, from every class. The page shows
    them alone, in the order in which to look; a .csv has a column verdict to fill in (keep, drop, relabel, skip).

    Examples

      cleanctl review sample
      cleanctl review sample --size 400 --selection intersection --name second
      cleanctl review sample --out to-check.csv
    """
    from cleanctl import api
    from cleanctl.cli.tables.audit import sample_tables

    result = api.sample_review(config, store=store, progress=run.progress)
    run.result(result, shown=sample_tables(result))


def audit(config: AuditConfig, store: Path, run: Run) -> None:
    """Tell the noise rate, and the precision and recall of a selection, from people's verdicts on a drawn sample.

    The intervals hold whatever the noise is: they rest on how the labels were drawn, not on a model. Labels that nobody
    decided widen them.

    Examples

      cleanctl audit
      cleanctl audit --selection joint
      cleanctl audit --sample second --json
    """
    from cleanctl import api
    from cleanctl.cli.tables.audit import audit_tables

    result = api.audit(config, store=store)
    run.result(result, shown=audit_tables(result))
