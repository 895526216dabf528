"""What joint expects of a selection: precision, recall, noise, what to look at first. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cleanctl.progress import Progress
from cleanctl.results import Expected, Transition
from cleanctl.selection.noise import Confusion
from cleanctl.selection.verdicts import Looks, Recalibration, recalibrated

SHOWN_KEYS = 1_000  # of those to look at first, in the summary; the stored array and the table have all
CHANNEL = "The noise depends on the true class alone, and prompts and images tell the classes apart."
DOUBT = (
    "About as likely as not nearly all labels are right; else the wrong ones were made where a network errs, and a "
    "label says nothing beyond its image."
)
VERDICTS = "The verdicts were given on labels drawn at random."


def apply_verdicts(
    arrays: Mapping[str, np.ndarray], label_M: np.ndarray, ok_M: np.ndarray, looks: Looks
) -> tuple[dict[str, np.ndarray], Recalibration]:
    """joint's arrays after people looked, all at readable images, and what mended them.

    The other classes share what the given label leaves as before. Which class was second is not stored, so a label that
    was the likeliest stays suggested even where another one now has `p_max`. Where a label stays behind the class
    suggested, `p_second` is at most so high: a third class may have been as likely as the label was. No rule reads it
    there. `entropy`, `clean` and `scaled` are those before the verdicts.
    """
    before = arrays["p_label"]
    found = recalibrated(before, np.searchsorted(ok_M, looks.row_V), looks.right_V, looks.weight_V)
    after = found.of(before)
    own = arrays["suggested"] == label_M
    share = ((1 - after) / np.maximum(1 - before, np.float32(1e-6))).astype(np.float32)
    other = np.minimum(np.where(own, arrays["p_second"], arrays["p_max"]) * share, 1 - after)
    takes = own | (after >= other)
    changed = {
        "p_label": after,
        "p_max": np.maximum(after, other),
        "p_second": np.where(takes, other, np.maximum(after, arrays["p_second"] * share)),
        "suggested": np.where(takes, label_M, arrays["suggested"]).astype(np.int32),
        "log_p_label": np.log(after),
    }
    return {**arrays, **changed}, found


def confusion_of(
    findings: Mapping[str, Any], p_M: np.ndarray, label_M: np.ndarray, *, num_classes: int, verdicts: int
) -> Confusion:
    """What the transition matrix says, in place of counts; after verdicts the noise is that of the probabilities."""
    pairs = findings["transition"]
    noise_C = np.array([np.nan if one is None else one for one in findings["noise"]])
    if verdicts:
        size_C = np.bincount(label_M, minlength=num_classes)
        right_C = np.bincount(label_M, weights=p_M, minlength=num_classes)
        noise_C = np.where(size_C > 0, 1 - right_C / np.maximum(size_C, 1), np.nan)
    return Confusion(
        given_E=np.array(pairs["given"], np.int64),
        likely_E=np.array(pairs["true"], np.int64),
        count_E=np.array(pairs["samples"], np.float64),
        noise_C=noise_C,
    )


def first_to_see(p_M: np.ndarray, budget: int | None, seen_M: np.ndarray) -> np.ndarray:
    """(M,) int32: 1 for the label least likely to be right, up to the budget; 0 for the others. seen_M: bool, people
    have decided already."""
    rank_M = np.zeros(len(p_M), np.int32)
    first = np.argsort(np.where(seen_M, np.inf, p_M), kind="stable")[: min(budget or 0, int((~seen_M).sum()))]
    rank_M[first] = np.arange(1, len(first) + 1)
    return rank_M


def expectation(
    findings: Mapping[str, Any],
    columns: Mapping[str, np.ndarray],
    key_M: Sequence[str],
    *,
    noise: float,
    mended: Recalibration | None,
) -> Expected:
    """mended: by verdicts, if there are any. columns: of the selection, of the readable rows: `p_label` (1 or 0 where
    people know), `keep` and, with a budget, `review`. key_M: their keys, where there is a budget."""
    p_M, keep_M = columns["p_label"], columns["keep"]
    rank_M = columns.get("review", np.zeros(len(p_M), np.int32))
    p_M = p_M.astype(np.float64)
    pairs = findings["transition"]
    first = np.flatnonzero(rank_M)[np.argsort(rank_M[rank_M > 0])]
    low, high = mended.interval(p_M[keep_M]) if mended and keep_M.any() else (None, None)
    return Expected(
        precision=float(p_M[keep_M].mean()) if keep_M.any() else None,
        precision_low=low,
        precision_high=high,
        recall=float(p_M[keep_M].sum() / p_M.sum()) if p_M.sum() > 0 else None,
        noise=noise,
        assumes=VERDICTS if mended else DOUBT if findings["check"]["class_conditional"] is False else CHANNEL,
        verdicts=mended.verdicts if mended else 0,
        class_conditional=findings["check"]["class_conditional"],
        budget=len(first),
        budget_wrong=float((1 - p_M[first]).sum()) if len(first) else None,
        look_first=tuple(key_M[row] for row in first[:SHOWN_KEYS]),
        transition=Transition(**{name: tuple(values) for name, values in pairs.items()}),
    )


def warn_of_noise(findings: Mapping[str, Any], verdicts: int, progress: Progress) -> None:
    """Says that joint's numbers cannot be believed where the noise does not look as it assumes and nobody looked."""
    check = findings["check"]
    if check["class_conditional"] is False and not verdicts:
        share = f"{100 * check['follows']:.0f} %" if "follows" in check else "too many"  # scores of an earlier version
        progress.warn(
            f"Of the labels that look wrong, {share} go where their images point, more than where the class alone "
            "decides what a wrong label is. Either nearly "
            "all labels are right, or the wrong ones were made where a network errs. No statistic of labels and "
            "images tells which, so joint takes both for about equally likely, keeps too few in the first case and "
            "expects too much in the second. Use --strategy intersection, or give 100 to 200 verdicts (--verdicts "
            "FILE)."
        )
