"""How well the selection and each of its rules find the right labels, where the store knows the truth. Pure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cleanctl.evaluate.detection import detection, roc_auc
from cleanctl.records import KNOWN_WRONG
from cleanctl.report.evidence import Evidence
from cleanctl.report.snapshot import Snapshot
from cleanctl.results import Detection


@dataclass(frozen=True, kw_only=True)
class Quality:
    """Of the rows whose truth is known. noise: share of wrong labels. rules: name → detection and ROC-AUC of the score.

    suggested: of the wrong labels whose true class is known, the share whose suggested class is the true one.
    classes: (place, rows, share of wrong labels, detection) of each given class.
    """

    count: int
    noise: float
    found: Detection
    rules: dict[str, tuple[Detection, float | None]]
    suggested: float | None
    classes: tuple[tuple[int, int, float, Detection], ...]


def quality_of(snapshot: Snapshot, evidence: tuple[Evidence, ...]) -> Quality | None:
    """None without a truth."""
    truth_N = snapshot.truth_N
    if truth_N is None:
        return None
    rows = np.flatnonzero(snapshot.ok_N & ((truth_N >= 0) | (truth_N == KNOWN_WRONG)))
    if not len(rows):
        return None
    label_M, truth_M, keep_M = snapshot.label_N[rows], truth_N[rows], snapshot.selection.keep[rows]
    clean_M = label_M == truth_M
    named_M = ~clean_M & (truth_M >= 0)
    hits = snapshot.selection.suggested[rows][named_M] == truth_M[named_M]
    return Quality(
        count=len(rows),
        noise=float(1 - clean_M.mean()),
        found=detection(keep_M, clean_M),
        rules={
            one.name: (
                detection(one.keep_N[rows], clean_M),
                roc_auc(-one.score_N[rows] if one.complement else one.score_N[rows], clean_M),
            )
            for one in evidence
        },
        suggested=float(hits.mean()) if len(hits) else None,
        classes=tuple(
            (place, int(own.sum()), float(1 - clean_M[own].mean()), detection(keep_M[own], clean_M[own]))
            for place in range(len(snapshot.classes))
            if (own := label_M == place).any()
        ),
    )
