"""Who took part in an epoch, counted against the truth where it is known. Pure arrays in, plain numbers out.

Legend: M readable training samples.
"""

from __future__ import annotations

from cleanctl.train.methods.method import Members
from cleanctl.train.pool import TrainingPool, judged

GROUPS = ("members", "absorbed", "relabelled", "dropped")


def member_counts(members: Members, pool: TrainingPool) -> dict[str, int | float | None]:
    """For each of GROUPS how many, and as `_right` and `_wrong` how many of them rightly or not.

    members take part; absorbed are those outside the selection that take part with the given label, relabelled those
    that take part with another; dropped are all that do not take part. A member is right if the label it takes part
    with is the true one, a dropped sample is rightly dropped if the given label is not. Samples whose truth is unknown
    (see `pool.judged`) are in neither count; without any truth both are None. label_accuracy: members_right as a
    share of the members whose truth is known, in [0, 1].
    """
    member_M, changed_M = members.member_M, members.label_M != pool.label_M
    chosen = {
        "members": member_M,
        "absorbed": member_M & ~pool.selected_M & ~changed_M,
        "relabelled": member_M & changed_M,
        "dropped": ~member_M,
    }
    counts: dict[str, int | float | None] = {}
    for group in GROUPS:
        counts[group] = int(chosen[group].sum())
        right, wrong = None, None
        if pool.truth_M is not None:
            label_M = pool.label_M if group == "dropped" else members.label_M
            known_M = chosen[group] & judged(label_M, pool.as_given_M, pool.truth_M)
            same = int((known_M & (label_M == pool.truth_M)).sum())
            other = int(known_M.sum()) - same
            right, wrong = (other, same) if group == "dropped" else (same, other)
        counts[f"{group}_right"], counts[f"{group}_wrong"] = right, wrong
    known = (counts["members_right"] or 0) + (counts["members_wrong"] or 0)
    counts["label_accuracy"] = (counts["members_right"] or 0) / known if known else None
    return counts
