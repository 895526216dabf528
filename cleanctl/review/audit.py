"""`audit`: people's verdicts on a drawn sample → noise rate, precision and recall of a selection, with intervals.

A verdict keep says that the label is right, drop and relabel that it is wrong, skip nothing. The selection is judged as
its rules made it, without people's verdicts, because the labels that were looked at would else stand for the others.
Another selection than the one that the sample was drawn for can be judged by the same looks: each stratum is divided
into the rows that it keeps and those that it drops.

Labels of a sample that nobody looked at yet are no evidence. In each cell those that stand behind the last look count
as not drawn, because looks are made in the order of the draw, which is random; those before it as undecided.
"""

from __future__ import annotations

import numpy as np

from cleanctl.config import AuditConfig
from cleanctl.errors import StoreError
from cleanctl.results import AuditReport, AuditStratum, Estimate
from cleanctl.review.quantities import Interval, Looks, estimate
from cleanctl.review.sample import newest_selection
from cleanctl.store import Split, Store
from cleanctl.store.standing import KEEP, standing
from cleanctl.store.stored import StoredSample

WAITING, RIGHT, WRONG, UNDECIDED = range(4)
ASSUMES = (
    "the verdicts are true, and the drawn labels were looked at in their order. Nothing is assumed of the noise or of "
    "the scores."
)


def audit(store: Store, config: AuditConfig) -> AuditReport:
    """Raises StoreError where there is no such sample or selection, where the labels are others now, or where nobody
    looked at a label of the sample yet."""
    split = store.split(config.split)
    sample = _read(split, config.sample)
    keep_N, name, changed = sample.keep, sample.selection, 0
    if config.selection is not None:
        selection = newest_selection(split, config.selection)
        keep_N, name = selection.unreviewed, selection.name
        changed = int((selection.keep != keep_N).sum())
    drawn_n = np.flatnonzero(sample.place > 0)
    drawn_n = drawn_n[np.argsort(sample.place[drawn_n])]
    found_n = _found(split, store.classes, drawn_n)
    if not found_n.any():
        raise StoreError(
            f"Nobody looked at any of the {len(drawn_n):,} labels of sample {config.sample!r} yet.",
            do="Review its page and store what it saves: cleanctl review apply FILE",
        )
    looks, waiting = count_looks(sample.stratum, keep_N, drawn_n, found_n)
    intervals = {one: _rounded(estimate(one, looks, config.confidence)) for one in ("noise", "precision", "recall")}
    noise, recall = intervals["noise"], intervals["recall"]
    assert noise is not None
    assert recall is not None
    return AuditReport(
        selection=name,
        split=split.name,
        sample=config.sample,
        confidence=config.confidence,
        labels=looks.kept + looks.dropped,
        kept=looks.kept,
        drawn=len(drawn_n),
        looks=int(looks.seen_H.sum()),
        right=int(looks.right_GH.sum()),
        wrong=int(looks.wrong_GH.sum()),
        undecided=int(looks.unknown_GH.sum()),
        waiting=waiting,
        noise=noise,
        precision=intervals["precision"],
        recall=recall,
        strata=_strata(looks),
        assumes=ASSUMES,
        without_verdicts=changed,
    )


def _read(split: Split, name: str) -> StoredSample:
    here = ", ".join(split.samples.attributes(damaged=False)) or "none"
    if name not in split.samples.attributes(damaged=False):
        raise StoreError(
            f"Split {split.name!r} has no sample named {name!r}; it has: {here}.",
            do="Draw one, and look at its labels: cleanctl review sample",
        )
    sample = split.samples.read(name)
    if sample.attributes.get("labels") != split.label_fingerprint():
        raise StoreError(
            f"The labels of split {split.name!r} are not those that the sample {name!r} was drawn from.",
            so="Its looks say nothing of the labels as they are now.",
            do="Draw a new one: cleanctl review sample --replace",
        )
    return sample


def _found(split: Split, classes: tuple[str, ...], drawn_n: np.ndarray) -> np.ndarray:
    """(n,) int8: what people say of each drawn label now, WAITING where they said nothing."""
    told = standing(split, classes)
    found_n = np.zeros(len(drawn_n), np.int8)
    place = {row: at for at, row in enumerate(drawn_n.tolist())}
    for row, code in zip(told.row_V.tolist(), told.code_V.tolist(), strict=True):
        if row in place:
            found_n[place[row]] = RIGHT if code == KEEP else WRONG
    if told.skipped:
        skipped = {one.key for one in told.skipped}
        for at, row in enumerate(drawn_n.tolist()):
            if not found_n[at] and split.keys(slice(row, row + 1))[0] in skipped:
                found_n[at] = UNDECIDED
    return found_n


def count_looks(
    stratum_N: np.ndarray, keep_N: np.ndarray, drawn_n: np.ndarray, found_n: np.ndarray
) -> tuple[Looks, int]:
    """The cells of a selection and what was found in each; how many drawn labels wait for a look.

    stratum_N: -1 for rows that are not part of it. drawn_n: rows in the order in which to look. found_n: their codes.
    """
    cell_N = np.where(stratum_N >= 0, 2 * stratum_N.astype(np.int64) + keep_N, -1)
    code_H, size_H = np.unique(cell_N[cell_N >= 0], return_counts=True)
    cell_n = np.searchsorted(code_H, cell_N[drawn_n])
    last_H = np.full(len(code_H), -1)
    seen_n = np.flatnonzero(found_n != WAITING)
    np.maximum.at(last_H, cell_n[seen_n], seen_n)
    before_n = (found_n == WAITING) & (np.arange(len(drawn_n)) < last_H[cell_n])
    counted_n = np.where(before_n, UNDECIDED, found_n)
    counts = [np.bincount(cell_n[counted_n == code], minlength=len(code_H))[None] for code in (RIGHT, WRONG, UNDECIDED)]
    looks = Looks(size_H=size_H, keep_H=code_H % 2 == 1, right_GH=counts[0], wrong_GH=counts[1], unknown_GH=counts[2])
    return looks, int((counted_n == WAITING).sum())


def _rounded(found: Interval | None) -> Estimate | None:
    if found is None:
        return None
    value, low, high = (float(array_G[0]) for array_G in (found.value_G, found.low_G, found.high_G))
    return Estimate(value=None if np.isnan(value) else value, low=max(low, 0.0), high=min(high, 1.0))


def _strata(looks: Looks) -> tuple[AuditStratum, ...]:
    return tuple(
        AuditStratum(kept=bool(kept), size=int(size), right=int(right), wrong=int(wrong), undecided=int(undecided))
        for kept, size, right, wrong, undecided in zip(
            looks.keep_H, looks.size_H, looks.right_GH[0], looks.wrong_GH[0], looks.unknown_GH[0], strict=True
        )
    )
