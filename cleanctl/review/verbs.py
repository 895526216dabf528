"""The verbs of `review` as Python; `cleanctl.api` exports them. Nothing heavy is imported before one is called."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from cleanctl.paths import sample_path, store_path, tars_path
from cleanctl.progress import SILENT, Progress

if TYPE_CHECKING:
    from cleanctl.config import (
        AuditConfig,
        ReviewApplyConfig,
        ReviewListConfig,
        ReviewRemoveConfig,
        ReviewSampleConfig,
        ReviewServeConfig,
    )
    from cleanctl.results import AuditReport, ReviewApplied, ReviewList, ReviewRemoved, ReviewSample, ReviewServed


def apply_review(
    config: ReviewApplyConfig, *, store: Path | str | None = None, progress: Progress = SILENT
) -> ReviewApplied:
    """Files of verdicts → the store's log of what people decided; InputError for contradictions that nobody settles."""
    from cleanctl.review.apply import apply
    from cleanctl.store import Store

    return apply(Store.open(store_path(store)), config, progress=progress)


def serve_review(
    config: ReviewServeConfig,
    *,
    store: Path | str | None = None,
    ready: Callable[[str], None],
    progress: Progress = SILENT,
) -> ReviewServed:
    """Serves the report's page on this machine until a stop signal; every verdict is stored as it is given.

    ready: called with the page's address when it answers.
    """
    from cleanctl.datasets.source import open_files
    from cleanctl.review.serve import serve
    from cleanctl.store import Store

    opened = Store.open(store_path(store))
    files = open_files(opened.source, cache=tars_path(opened.path))
    return serve(opened, config, files=files, ready=ready, progress=progress)


def list_review(config: ReviewListConfig, *, store: Path | str | None = None, out: Path | None = None) -> ReviewList:
    """What people decided of a split, and what of it does not hold any more; `out` writes it as a file of verdicts."""
    from cleanctl.review.inspect import list_verdicts
    from cleanctl.store import Store

    return list_verdicts(Store.open(store_path(store)), config, out=out)


def remove_review(config: ReviewRemoveConfig, *, store: Path | str | None = None) -> ReviewRemoved:
    """Takes back the verdicts on some images; the log keeps that they were given."""
    from cleanctl.review.inspect import remove_verdicts
    from cleanctl.store import Store

    return remove_verdicts(Store.open(store_path(store)), config)


def sample_review(
    config: ReviewSampleConfig, *, store: Path | str | None = None, progress: Progress = SILENT
) -> ReviewSample:
    """Draws the labels that a person is to look at for `audit` → the store, and a page or a list of them."""
    from cleanctl.datasets.source import open_files_for_page
    from cleanctl.review.sample import draw_sample
    from cleanctl.store import Store

    opened = Store.open(store_path(store))
    files = open_files_for_page(opened.source, cache=tars_path(opened.path), progress=progress)
    out = config.out or sample_path(opened.path, config.name)
    return draw_sample(opened, config, out=out, files=files, progress=progress)


def audit(config: AuditConfig, *, store: Path | str | None = None) -> AuditReport:
    """People's verdicts on a drawn sample → noise rate, precision and recall of a selection, with intervals."""
    from cleanctl.review.audit import audit as run
    from cleanctl.store import Store

    return run(Store.open(store_path(store)), config)
