"""What people decided of labels, over what a strategy decided: keep forces kept, drop forces dropped, relabel forces
kept under another label. Every verb that uses a selection asks here.

A stored selection holds what it obeyed: `verdict` (int8, codes of `store.standing`), `verdict_label` (int32, the class
by the verdict, -1 without one) and `unreviewed` (bool, what it would keep without). Verdicts that came later are obeyed
over it; `status` says that there are some.

Legend: N rows of the split, M readable ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cleanctl.progress import Progress
from cleanctl.records import Status
from cleanctl.results import Reviewed
from cleanctl.store import Split
from cleanctl.store.standing import DROP, KEEP, RELABEL, UNDECIDED, Standing, standing
from cleanctl.store.stored import StoredSelection

SETTLE = "See both sides with: cleanctl review list --contradictions"


@dataclass(frozen=True, kw_only=True)
class Verdicts:
    """The verdicts on the rows of a selection: code_N int8, label_N int32 (-1 where UNDECIDED or DROP)."""

    code_N: np.ndarray
    label_N: np.ndarray

    @classmethod
    def of(cls, found: Standing, ok_N: np.ndarray) -> Verdicts:
        """ok_N: bool, readable; a verdict on another row decides nothing."""
        code_N, label_N = np.zeros(len(ok_N), np.int8), np.full(len(ok_N), -1, np.int32)
        code_N[found.row_V], label_N[found.row_V] = found.code_V, found.label_V
        code_N[~ok_N], label_N[~ok_N] = UNDECIDED, -1
        return cls(code_N=code_N, label_N=label_N)

    def at(self, rows: np.ndarray) -> Verdicts:
        return Verdicts(code_N=self.code_N[rows], label_N=self.label_N[rows])

    def __len__(self) -> int:
        """How many rows are decided."""
        return int((self.code_N != UNDECIDED).sum())

    def keep(self, keep_N: np.ndarray) -> np.ndarray:
        """bool (N,): what is kept where people had the last word."""
        return np.where(self.code_N == UNDECIDED, keep_N, self.code_N != DROP)

    def certain(self, p_N: np.ndarray) -> np.ndarray:
        """(N,) in the type of p_N: the probability that the label to use is right, 1 or 0 where people know."""
        known_N = np.where(self.code_N == DROP, 0, 1).astype(p_N.dtype)
        return np.where(self.code_N == UNDECIDED, p_N, known_N)

    def labels(self, given_N: np.ndarray) -> np.ndarray:
        """(N,) in the type of given_N: the label to use."""
        return np.where(self.code_N == RELABEL, self.label_N, given_N).astype(given_N.dtype)


@dataclass(frozen=True, kw_only=True)
class Obeyed:
    """A selection with people's verdicts: keep_N bool; verdicts that were obeyed. newer: of them, verdicts that the
    selection itself does not know, or knows otherwise."""

    keep_N: np.ndarray
    verdicts: Verdicts
    newer: int

    def note(self, name: str, progress: Progress) -> None:
        """Tells what was obeyed, where something was."""
        if len(self.verdicts):
            progress.note(f"{len(self.verdicts):,} verdicts of people are obeyed (--ignore-review leaves them out).")
        if self.newer:
            progress.note(
                f"{self.newer:,} of them came after the selection {name!r}: its table and summary do not show them "
                f"before it is made again (cleanctl select --name {name})."
            )


def obey(split: Split, selection: StoredSelection, classes: Sequence[str], *, ignore_review: bool) -> Obeyed:
    """The selection as it counts now. One that was made with --ignore-review stays as it is."""
    if ignore_review or ignored(selection.attributes):
        none = Verdicts.of(Standing(), np.zeros(len(selection.keep), bool))
        return Obeyed(keep_N=selection.unreviewed, verdicts=none, newer=0)
    now = Verdicts.of(standing(split, classes), split.status_N() == Status.OK)
    known = Verdicts(code_N=selection.verdict, label_N=selection.verdict_label)
    differs_N = (now.code_N != known.code_N) | (now.label_N != known.label_N)
    before_N = np.where(differs_N, selection.unreviewed, selection.keep)
    return Obeyed(keep_N=now.keep(before_N), verdicts=now, newer=int(differs_N.sum()))


def ignored(attributes: dict[str, Any]) -> bool:
    """Whether a stored selection was made with --ignore-review."""
    return bool((attributes.get("review") or {}).get("ignored"))


def newer_verdicts(split: Split, attributes: dict[str, Any], name: str, found: Standing) -> int:
    """Verdicts that a stored selection does not know, or knows otherwise; its arrays are read only if there are any.

    attributes: the selection's. found: the verdicts that hold now.
    """
    if ignored(attributes) or (attributes.get("review") or {}).get("decisions", "") == found.fingerprint():
        return 0
    selection = split.selections.read(name)
    now = Verdicts.of(found, split.status_N() == Status.OK)
    return int(((now.code_N != selection.verdict) | (now.label_N != selection.verdict_label)).sum())


def provenance(found: Standing, *, ignore_review: bool) -> dict[str, Any]:
    """Which verdicts a selection obeyed, for its attributes."""
    return {
        "ignored": ignore_review,
        "decisions": found.fingerprint(),
        "latest": max((one.at for one in found.verdicts), default=""),
    }


def reviewed(found: Standing, verdicts_M: Verdicts, unreviewed_M: np.ndarray, keep_M: np.ndarray) -> Reviewed | None:
    """For the summary; None where nobody decided anything."""
    if not (len(verdicts_M) or found.idle() or found.contradictions):
        return None
    decided_M = verdicts_M.code_N != UNDECIDED
    counts = {word: int((verdicts_M.code_N == code).sum()) for word, code in
              (("keep", KEEP), ("drop", DROP), ("relabel", RELABEL))}  # fmt: skip
    return Reviewed(
        **counts,
        newly_kept=int((decided_M & keep_M & ~unreviewed_M).sum()),
        newly_dropped=int((decided_M & ~keep_M & unreviewed_M).sum()),
        idle=found.idle(),
        contradictions=len(found.contradictions),
    )


def warn(found: Standing, progress: Progress) -> None:
    """What of people's verdicts does not hold, or contradicts itself."""
    if idle := found.idle():
        progress.warn(f"Verdicts that are not obeyed: {idle}.")
    if found.contradictions:
        progress.warn(
            f"Verdicts contradict each other on {len(found.contradictions):,} images; the latest counts. {SETTLE}"
        )
