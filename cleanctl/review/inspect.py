"""What the log of a split holds, in a person's words; and taking verdicts back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path

from cleanctl.config import ReviewListConfig, ReviewRemoveConfig
from cleanctl.results import ReviewList, ReviewRemoved
from cleanctl.review.apply import IDLE, conflicting, line
from cleanctl.review.files import write_verdicts
from cleanctl.store import Store
from cleanctl.store.decisions import Decisions, Verdict, now, resolve
from cleanctl.store.standing import WORDS, Standing, dataset_fingerprint, standing

SOURCE = "cleanctl review remove"


def list_verdicts(store: Store, config: ReviewListConfig, *, out: Path | None = None) -> ReviewList:
    """The latest verdict on each image, or with config.history every one; `out` writes the latest as a JSON file."""
    split = store.split(config.split)
    log = Decisions(split.store_path, split.name)
    found = standing(split, store.classes)
    latest = list(_with_reasons(found))
    disputed = {one.sides[0].image for one in found.contradictions}
    chosen = [(one, why) for one, why in latest if _passes(one, config, disputed)]
    if out is not None:
        verdicts = [one for one, _ in chosen]
        write_verdicts(out, verdicts, split=split.name, store=dataset_fingerprint(split))
    if config.history:
        chosen = [(one, "") for one in log.read() if _passes(one, config, disputed)]
    return ReviewList(
        split=split.name,
        place=str(log.path),
        total=len(latest),
        **{word: found.count(code) for code, word in enumerate(WORDS) if word},
        skip=len(found.skipped),
        gone=len(found.gone),
        changed=len(found.changed),
        relabelled=len(found.relabelled),
        people=dict(Counter(one.by for one, _ in latest).most_common()),
        contradictions=conflicting(found.contradictions),
        shown=tuple(line(one, why) for one, why in chosen[: config.limit]),
        out=None if out is None else str(out),
    )


def _with_reasons(found: Standing) -> Iterator[tuple[Verdict, str]]:
    """Each verdict that is the latest on its image, and why it does not hold, "" where it does."""
    yield from ((one, "") for one in (*found.verdicts, *found.skipped))
    for reason, why in IDLE.items():
        yield from ((one, why) for one in getattr(found, reason))


def _passes(verdict: Verdict, config: ReviewListConfig, disputed: Collection[tuple[str, str]]) -> bool:
    if config.verdict is not None and verdict.verdict != config.verdict:
        return False
    if config.by is not None and verdict.by != config.by:
        return False
    if config.contradictions and verdict.image not in disputed:
        return False
    return config.match is None or config.match in verdict.key


def remove_verdicts(store: Store, config: ReviewRemoveConfig) -> ReviewRemoved:
    """Takes back what anybody said of some images: a line of the log each, so that the history stays."""
    split = store.split(config.split)
    log = Decisions(split.store_path, split.name)
    latest, _ = resolve(log.read())
    time = now()
    taken = [
        replace(one, verdict="withdrawn", label=None, by=config.by, at=time, source=SOURCE, settled=time)
        for one in latest.values()
        if one.key in config.keys
    ]
    log.append(taken)
    known = {one.key for one in taken}
    return ReviewRemoved(
        split=split.name, removed=len(taken), unknown=tuple(key for key in config.keys if key not in known)
    )
