"""`conflicts`: a split and those it is compared with → the score `conflict` in the store, and its summary.

Exact copies come from the content digests. Near copies are candidates by embeddings (candidates.py), compared by pixels
(compare.py, pixels.py) and put into groups that have a centre (groups.py). Written with the fingerprints of everything
it was made from; what changed while it ran is refused, so that no score of one version lies beside images of another.

Legend: M images of the pool (pool.py), N those of the split itself, P pairs.
"""

from __future__ import annotations

import time

import numpy as np

from cleanctl.config import ConflictsConfig
from cleanctl.conflicts.candidates import Axes, Pairs, find_pairs
from cleanctl.conflicts.compare import Comparison, OpenLoader
from cleanctl.conflicts.findings import Findings, arrange
from cleanctl.conflicts.groups import group
from cleanctl.conflicts.pool import Pool
from cleanctl.conflicts.summary import summarise
from cleanctl.datasets.source import open_files
from cleanctl.errors import StoreError
from cleanctl.paths import tars_path
from cleanctl.progress import SILENT, Progress
from cleanctl.records import ClassPosterior
from cleanctl.results import ConflictsSummary
from cleanctl.score.compute import record_score
from cleanctl.score.conflict import Conflict, contents
from cleanctl.store import Split, Store

MEMBERS_COMPARED = 3  # images of other splits that all of a group are compared with


def find_conflicts(
    store: Store, config: ConflictsConfig, *, open_loader: OpenLoader, progress: Progress = SILENT
) -> ConflictsSummary:
    """open_loader: of a split's images; where the source is not here any more, embeddings alone are compared.

    Raises StoreError for a split that is incomplete, unknown, or changed meanwhile.
    """
    started = time.perf_counter()
    splits = _splits(store, config)
    before = {split.name: contents(split) for split in splits}
    label_M = splits[0].label_N()[splits[0].ok_rows()]
    pool = Pool(splits)
    if not pool.own:
        raise StoreError(
            f"Split {config.split!r} of {store.path} holds no readable image.",
            do="Look at the reasons with cleanctl embed, and embed readable images.",
        )
    axes = Axes(pool)
    comparison = Comparison(
        pool, axes, least_likeness=config.likeness, least_cosine=config.cosine, folder=store.path.absolute().parent
    )
    here = open_files(store.source, cache=tars_path(store.path)) is not None
    pairs = _candidates(pool, axes, config, progress)
    _prepare(comparison, pairs, len(pool), open_loader if here else None, progress)
    with progress.track("comparing candidates", total=len(pairs.first_P), unit="pairs") as task:
        alike_P = comparison.alike(pairs.first_P, pairs.second_P, task)
    findings = _findings(pool, pairs, alike_P, comparison, config, len(store.classes))
    if any(contents(store.split(name)) != was for name, was in before.items()):
        raise StoreError(
            f"Images of {store.path} changed while conflicts were looked for.",
            so="Nothing was stored, as it would be of the old images.",
            do="Run the same cleanctl conflicts again.",
        )
    how = _how(comparison, here)
    summary = summarise(
        pool,
        findings,
        store.classes,
        config,
        {"search": pairs.by, "candidates": len(pairs.first_P), "compared_by": how, "unreadable": comparison.unreadable},
        seconds=time.perf_counter() - started,
    )
    about = {
        "ran": {"by": f"copies by {how}"},
        "config": config.as_json(),
        "contents": before[config.split],
        "against": {name: was for name, was in before.items() if name != config.split},
        "splits": [split.name for split in splits],
        "summary": summary.to_json(),
    }
    record_score(
        splits[0], Conflict, _posterior(findings, pool), findings.arrays(pool), about,
        label_M=label_M, num_classes=len(store.classes), device="cpu",
    )  # fmt: skip
    return summary


def _splits(store: Store, config: ConflictsConfig) -> list[Split]:
    """The split itself, then those it is compared with: all others where none is named."""
    store.join_shards(config.split)
    others = config.against or tuple(name for name in store.split_names() if name != config.split)
    splits = [store.split(config.split)]
    splits += [] if config.no_leaks else [store.split(name) for name in others if name != config.split]
    for split in splits:
        split.require_complete()
    return splits


def _candidates(pool: Pool, axes: Axes, config: ConflictsConfig, progress: Progress) -> Pairs:
    """Neighbours of the images that stand for all of their bytes and embedding, and images of one embedding."""
    first_M, same_M = pool.twin_M, pool.same_embedding_M()
    single_M = first_M == np.arange(len(pool))
    pairs = find_pairs(
        pool, single_M & (same_M == np.arange(len(pool))), axes, neighbors=config.neighbors,
        least_cosine=config.least_cosine, progress=progress,
    )  # fmt: skip
    again_P = np.flatnonzero(single_M & (same_M != np.arange(len(pool))))
    again_P = again_P[same_M[again_P] < pool.own]
    first_P = np.concatenate([pairs.first_P, same_M[again_P]])
    return Pairs(first_P, np.concatenate([pairs.second_P, again_P]), pairs.by)


def _prepare(
    comparison: Comparison, pairs: Pairs, count: int, open_loader: OpenLoader | None, progress: Progress
) -> None:
    """Reads what the candidates are compared by."""
    wanted_M = np.zeros(count, bool)
    wanted_M[pairs.first_P] = wanted_M[pairs.second_P] = True
    if open_loader is None:
        progress.warn("The images are not here: copies are told by their embeddings alone, which is less certain.")
    else:
        comparison.read(wanted_M, open_loader, progress)
    unseen_P = ~(comparison.seen_M[pairs.first_P] & comparison.seen_M[pairs.second_P])
    if comparison.unreadable:
        progress.warn(
            f"{comparison.unreadable:,} images could be read by embed and cannot now; they are compared by their "
            "embeddings alone."
        )
    if unseen_P.any():  # groups compare images that are no candidates of each other
        comparison.remember(wanted_M)


def _how(comparison: Comparison, pixels: bool) -> str:
    if not pixels:
        return "embeddings alone: the images are not here"
    return f"pixels; {comparison.unreadable:,} images by embeddings alone" if comparison.unreadable else "pixels"


def _findings(
    pool: Pool, pairs: Pairs, alike_P: np.ndarray, comparison: Comparison, config: ConflictsConfig, classes: int
) -> Findings:
    copy_P = alike_P > 0
    first_P, second_P, alike_P = pairs.first_P[copy_P], pairs.second_P[copy_P], alike_P[copy_P]
    own_P = second_P < pool.own  # first_P < second_P, and one of the two is the split's own
    stars = group(pool.own, first_P[own_P], second_P[own_P], alike_P[own_P], comparison.alike)
    leak = _leaks(pool, stars.centre_M, first_P[~own_P], second_P[~own_P], alike_P[~own_P], comparison)
    return arrange(pool, stars, leak, placeholder_copies=config.placeholder_copies, classes=classes)


def _leaks(
    pool: Pool,
    centre_N: np.ndarray,
    own_P: np.ndarray,
    other_P: np.ndarray,
    alike_P: np.ndarray,
    comparison: Comparison,
) -> tuple[np.ndarray, np.ndarray]:
    """(likeness (N,) float32, pool number (N,) int64) of the nearest copy in another split; 0 and -1 without one.

    All members of a group are compared with the copies that one of them has there.
    """
    one, other, alike = [own_P], [other_P], [alike_P]
    grouped_P = np.flatnonzero(centre_N[own_P] >= 0)
    if len(grouped_P):
        order = grouped_P[np.lexsort((-alike_P[grouped_P], centre_N[own_P[grouped_P]]))]
        centre, start = np.unique(centre_N[own_P[order]], return_index=True)
        member_of = np.argsort(centre_N, kind="stable")
        begin, end = (np.searchsorted(centre_N[member_of], centre, side=side) for side in ("left", "right"))
        known = set(zip(own_P.tolist(), other_P.tolist()))
        more = [
            (member, there)
            for at, low, high in zip(np.split(order, start[1:]), begin, end)
            for there in dict.fromkeys(other_P[at].tolist()[:MEMBERS_COMPARED])
            for member in member_of[low:high].tolist()
            if (member, there) not in known
        ]
        if more:
            member_P, there_P = np.array(more).T
            one, other = [*one, member_P], [*other, there_P]
            alike = [*alike, comparison.alike(member_P, there_P)]
    own_P, other_P, alike_P = np.concatenate(one), np.concatenate(other), np.concatenate(alike)
    likeness_N, number_N = np.zeros(pool.own, np.float32), np.full(pool.own, -1, np.int64)
    order = np.lexsort((-other_P, alike_P))  # the last one written is the most alike, the lowest number of equals
    order = order[alike_P[order] > 0]
    likeness_N[own_P[order]], number_N[own_P[order]] = alike_P[order], other_P[order]
    same_M = np.flatnonzero(pool.twin_M[pool.own :] < pool.own) + pool.own  # the same bytes in another split
    likeness_N[pool.twin_M[same_M[::-1]]], number_N[pool.twin_M[same_M[::-1]]] = 1, same_M[::-1]
    twin_N = pool.twin_M[: pool.own]
    return likeness_N[twin_N], number_N[twin_N]


def _posterior(findings: Findings, pool: Pool) -> ClassPosterior:
    """The shares of the labels in each image's group."""
    label_N = pool.label_M[: pool.own].astype(np.int64)
    count = len(label_N)
    p_label_N = np.ones(count, np.float32)
    p_max_N, second_N, entropy_N = np.ones(count, np.float32), np.zeros(count, np.float32), np.zeros(count, np.float32)
    suggested_N = label_N.astype(np.int32)
    for member_K in findings.member_G:
        label_K, count_K = np.unique(label_N[member_K], return_counts=True)
        share_K = count_K / count_K.sum()
        best = int(np.argmax(share_K))
        p_label_N[member_K] = share_K[np.searchsorted(label_K, label_N[member_K])]
        p_max_N[member_K], suggested_N[member_K] = share_K[best], label_K[best]
        second_N[member_K] = np.sort(share_K)[-2] if len(share_K) > 1 else 0
        entropy_N[member_K] = -(share_K * np.log(share_K)).sum()
    return ClassPosterior(
        p_label=p_label_N, p_max=p_max_N, suggested=suggested_N, p_second=second_N, entropy=entropy_N,
        log_p_label=np.log(p_label_N),
    )  # fmt: skip
