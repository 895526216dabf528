"""The scorer `conflict`: which images are copies, leaks, contradictions or placeholders, as `cleanctl conflicts` found.

A rule holds where an image *has* the conflict, so strategies say `~conflict.leak`:

    exact        another image of the split has the same bytes
    duplicate    it is a copy, exact or near, and not the one of its group that is to be kept: `~` leaves one of each
    label        images of its group have different labels
    leak         an image of another split is a copy of it
    placeholder  it is one of many copies under many labels, such as "image unavailable"
    match        most of its group have its label: `~conflict.label | conflict.match` keeps what the majority says

As a posterior it gives the labels' shares among the group's images; an image without a group agrees with itself.
Arrays beside ClassPosterior's: `group` int32, -1 without one, 0 the largest; `centre` int32, the row that all of the
group are copies of; `similarity` float32, to the centre, 0 without a group; `kept`, `exact`, `label`, `placeholder`
int8, 0 or 1; `leak` float32, the likeness of the nearest image of another split, 0 without one; `leak_split`,
`leak_row` int32, which.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from cleanctl.errors import StoreError
from cleanctl.score.mechanisms import Mechanism, RuleResult, Score, match
from cleanctl.score.recorded import RecordedScorer
from cleanctl.store import Split, Store

if TYPE_CHECKING:
    from cleanctl.config import SelectConfig


def exact(score: Score, label_N: np.ndarray, config: SelectConfig) -> RuleResult:
    return _held(score["exact"] > 0, score["similarity"])


def duplicate(score: Score, label_N: np.ndarray, config: SelectConfig) -> RuleResult:
    """Ranked by the likeness to the group's centre."""
    return _held(is_duplicate(score), score["similarity"])


def label(score: Score, label_N: np.ndarray, config: SelectConfig) -> RuleResult:
    """Ranked by the share of the group that has another label."""
    return _held(score["label"] > 0, 1 - score["p_label"])


def leak(score: Score, label_N: np.ndarray, config: SelectConfig) -> RuleResult:
    return _held(score["leak"] > 0, score["leak"])


def placeholder(score: Score, label_N: np.ndarray, config: SelectConfig) -> RuleResult:
    return _held(score["placeholder"] > 0, score["similarity"])


def is_duplicate(score: Score) -> np.ndarray:
    """(N,) bool: in a group, and not the one to keep. A group may be an image and its copies in other splits."""
    return (score["group"] >= 0) & (score["kept"] == 0)


def _held(keep_N: np.ndarray, score_N: np.ndarray) -> RuleResult:
    """Score 0 where the rule does not hold, so that a higher one never stands where it does not."""
    return RuleResult(score_N=np.where(keep_N, score_N, 0).astype(np.float32), keep_N=keep_N)


class Conflict(RecordedScorer):
    name = "conflict"
    mechanisms: ClassVar[Mapping[str, Mechanism]] = {
        "exact": exact,
        "duplicate": duplicate,
        "label": label,
        "leak": leak,
        "placeholder": placeholder,
        "match": match,
    }
    evidence = -1  # of a few images; any other scorer knows more
    written_by = "cleanctl conflicts"

    def outdated(self, split: Split, stored: Mapping[str, Any]) -> bool:
        return bool(why_outdated(split, stored))


def why_outdated(split: Split, stored: Mapping[str, Any]) -> str:
    """What changed since the score was made, in words; empty if nothing did. stored: the score's attributes."""
    if stored.get("stale") or stored.get("contents") != contents(split):
        return f"images of split {split.name!r} changed"
    if (stored.get("basis") or {}).get("labels") != split.label_fingerprint():
        return f"labels of split {split.name!r} changed"
    for other, before in dict(stored.get("against", {})).items():
        try:
            now = contents(Store.open(split.store_path).split(other))
        except StoreError:
            now = ""
        if now != before:
            return f"images of split {other!r} changed"
    return ""


def contents(split: Split) -> str:
    """A fingerprint of a split's keys and images: their content, or where that is not known (imported arrays) their
    source's size and time."""
    prints = split.fingerprints()
    unknown_N = ~prints.digest_N16.any(axis=1)
    digest = hashlib.sha256()
    for start, texts in split.keys().blocks():
        digest.update(("\0" * (start > 0) + "\0".join(texts)).encode())
    for values in (split.status_N(), prints.digest_N16, prints.size_N[unknown_N], prints.mtime_ns_N[unknown_N]):
        digest.update(np.ascontiguousarray(values).view(np.uint8).data)
    return digest.hexdigest()[:16]
