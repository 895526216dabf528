"""A snapshot and what was found in it → the page's record; which rows and which images the page holds.

A page of up to MOST_ROWS rows holds all of them. Of more it holds those that sections show, those that are worth most
to review, and others by chance, the same ones in every run.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from cleanctl.report.evidence import Evidence
from cleanctl.report.page.record import PageData, Rule, Section, Verdict
from cleanctl.report.snapshot import Snapshot
from cleanctl.report.thumbnails import Thumbnails

MOST_ROWS = 250_000
FIRST_TO_REVIEW = 20_000
DIGEST_BYTES = 8


@dataclass(frozen=True, kw_only=True)
class Images:
    """What the page knows of images: those inside it, or the folder beside it."""

    thumbnails: Thumbnails
    folder: str | None = None


@dataclass(frozen=True, kw_only=True)
class Around:
    """What stands around the table."""

    title: str
    subtitle: str = ""
    made: str = ""
    before: Sequence[Section] = ()
    after: Sequence[Section] = ()


def rows_of_page(snapshot: Snapshot, gain_N: np.ndarray, shown: Iterable[int], most: int = MOST_ROWS) -> np.ndarray:
    """(M,) int64 rows, ascending; all of them up to `most`."""
    if len(snapshot) <= most:
        return np.arange(len(snapshot))
    chosen = np.zeros(len(snapshot), bool)
    chosen[list(shown)] = True
    chosen[np.argsort(-gain_N, kind="stable")[: min(FIRST_TO_REVIEW, most // 4)]] = True
    others = np.flatnonzero(~chosen)
    room = max(most - int(chosen.sum()), 0)
    chosen[np.random.default_rng(0).permutation(others)[:room]] = True
    return np.flatnonzero(chosen)


def rows_with_images(gain_N: np.ndarray, ok_N: np.ndarray, shown: Sequence[int], most: int) -> list[int]:
    """Rows to make images of, the most wanted first: what sections show, then half by gain and half by chance."""
    wanted = list(dict.fromkeys(shown))[:most]
    room = most - len(wanted)
    seen = set(wanted)
    by_gain = np.argsort(-gain_N, kind="stable")[: room + len(seen)].tolist()
    by_chance = np.random.default_rng(1).permutation(np.flatnonzero(ok_N))[: room + len(seen)].tolist()
    wanted += [row for row in by_gain if row not in seen and ok_N[row]][: room // 2]
    seen = set(wanted)
    return wanted + [row for row in by_chance if row not in seen][: most - len(wanted)]


def page_data(
    snapshot: Snapshot,
    evidence: tuple[Evidence, ...],
    around: Around,
    *,
    rows: np.ndarray,
    gain_N: np.ndarray,
    images: Images,
    group_N: np.ndarray | None = None,
) -> PageData:
    """rows: (M,) int64, ascending store rows that the page holds. gain_N, group_N: of all N rows."""
    selection = snapshot.selection
    whole = len(rows) == len(snapshot)
    failed_M = snapshot.failed_N[rows]
    return PageData(
        title=around.title,
        subtitle=around.subtitle,
        made=around.made,
        store=snapshot.fingerprint,
        split=snapshot.split,
        selection=selection.name,
        classes=snapshot.classes,
        key=snapshot.keys[rows].tolist(),
        label_N=snapshot.label_N[rows],
        keep_N=selection.keep[rows],
        suggested_N=selection.suggested[rows],
        p_label_N=selection.p_label[rows],
        p_max_N=selection.p_max[rows],
        rules=[_rule(one, rows) for one in evidence],
        failed_N=failed_M if failed_M.any() else None,
        reason=[snapshot.reasons.get(row, "") for row in rows.tolist()] if failed_M.any() else None,
        truth_N=None if snapshot.truth_N is None else snapshot.truth_N[rows],
        digest_N=_digests(snapshot, rows),
        gain_N=gain_N[rows],
        group_N=None if group_N is None else group_N[rows],
        row_N=None if whole else rows,
        rows_in_split=None if whole else len(snapshot),
        thumbnails={} if images.folder else images.thumbnails.jpeg,
        image_folder=images.folder,
        verdicts=_verdicts(snapshot),
        before=around.before,
        after=around.after,
    )


def _rule(one: Evidence, rows: np.ndarray) -> Rule:
    return Rule(
        name=one.name,
        score_N=one.score_N[rows],
        keep_N=one.keep_N[rows],
        cut=one.cut,
        criterion=one.criterion,
    )


def _verdicts(snapshot: Snapshot) -> list[Verdict]:
    """What people decided, and what they looked at without deciding."""
    found = snapshot.standing
    return [
        Verdict(
            key=one.key,
            verdict=one.verdict,
            digest=one.digest or None,
            given=one.given,
            label=one.label,
            by=one.by,
            at=one.at,
        )
        for one in (*found.verdicts, *found.skipped)
    ]


def _digests(snapshot: Snapshot, rows: np.ndarray) -> np.ndarray | None:
    """None where no file was read: imported arrays."""
    digest_M = snapshot.digest_N[rows, :DIGEST_BYTES]
    return digest_M if digest_M.any() else None
