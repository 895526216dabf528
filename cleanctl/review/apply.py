"""Verdicts of files → the store's log; verdicts that contradict each other are shown, never merged in silence."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from cleanctl.config import ReviewApplyConfig
from cleanctl.errors import InputError, UsageError
from cleanctl.progress import SILENT, Progress
from cleanctl.results import Conflicting, ReviewApplied, VerdictLine
from cleanctl.review.files import Told, read_verdicts, require_sense
from cleanctl.store import Split, Store
from cleanctl.store.decisions import Contradiction, Decisions, Verdict, now, resolve
from cleanctl.store.standing import dataset_fingerprint, rows_now, why_idle

SHOWN = 5
IDLE = {
    "gone": "no such image in the split",
    "changed": "the image has another content now",
    "relabelled": "the label is another one now",
}


@dataclass
class Sorted:
    """The verdicts of the files: those that are about rows as they are now, and the others by why they are not."""

    usable: list[Verdict] = field(default_factory=list)
    idle: dict[str, list[Verdict]] = field(default_factory=lambda: {reason: [] for reason in IDLE})


def apply(store: Store, config: ReviewApplyConfig, *, progress: Progress = SILENT) -> ReviewApplied:
    """Raises InputError for a file that is wrong in itself, for verdicts none of which is about this split, and for
    contradictions that `config.prefer` does not settle; then nothing is written."""
    files = [read_verdicts(file) for file in config.files]
    _require_preferred(files, config.prefer)
    split = store.split(_split_name(files, config))
    _warn_of_others(files, split, progress)
    found = _sort([one for told in files for one in told.verdicts], split, store.classes)
    read = sum(len(told.verdicts) for told in files)
    if read and not found.usable:
        _refuse_strangers(found, files, split)
    log = Decisions(split.store_path, split.name)
    before = log.read()
    fresh = _fresh(found.usable, before)
    contradictions = _touched(resolve([*before, *fresh])[1], fresh)
    settling = _settled(contradictions, fresh, files, config)
    if not config.dry_run:
        log.append([*fresh, *settling])
    return ReviewApplied(
        split=split.name,
        files=tuple(str(told.file) for told in files),
        read=read,
        added=len(fresh),
        **{word: sum(one.verdict == word for one in fresh) for word in ("keep", "drop", "relabel", "skip")},
        known=len(found.usable) - len(fresh),
        **{reason: len(which) for reason, which in found.idle.items()},
        replaced=_replaced(fresh, before),
        contradictions=conflicting(contradictions),
        left_out=tuple(line(one, why) for reason, why in IDLE.items() for one in found.idle[reason][:SHOWN]),
        prefer=config.prefer,
        dry_run=config.dry_run,
    )


def _split_name(files: Sequence[Told], config: ReviewApplyConfig) -> str:
    """Of the option, else of the files; InputError where they name different ones."""
    named = {told.split: told.file for told in files if told.split is not None}
    wanted = config.split or next(iter(named), "train")
    for split, file in named.items():
        if split != wanted:
            raise InputError(
                f"{file} holds verdicts on split {split!r}; the others are on {wanted!r}.",
                do=f"Apply it by itself: cleanctl review apply {file} --split {split}",
            )
    return wanted


def _require_preferred(files: Sequence[Told], prefer: str | None) -> None:
    if prefer not in (None, "latest", "stored") and _source(files, str(prefer)) is None:
        raise UsageError(
            f"--prefer is {prefer!r}, which is none of the files.",
            do=f"Give latest, stored, or one of: {', '.join(str(told.file) for told in files)}.",
        )


def _source(files: Sequence[Told], name: str) -> str | None:
    """Of the file of that path or name."""
    return next((told.source for told in files if name in (str(told.file), told.file.name)), None)


def _warn_of_others(files: Sequence[Told], split: Split, progress: Progress) -> None:
    mine = dataset_fingerprint(split)
    for told in files:
        if told.store and told.store != mine:
            progress.note(
                f"{told.file} was made when split {split.name!r} held other images; its verdicts go by key and content."
            )


def _sort(verdicts: Iterable[Verdict], split: Split, classes: Sequence[str]) -> Sorted:
    """With digest and given label filled in where a file does not say: as the store has them now."""
    verdicts, found = list(verdicts), Sorted()
    here = rows_now(split, {one.key for one in verdicts}, classes)
    number = {name: index for index, name in enumerate(classes)}
    for one in verdicts:
        one = replace(one, label=_class_name(one, number, classes))
        row = here.get(one.key)
        if row is not None:
            one = replace(one, digest=one.digest or row.digest, given=one.given or row.given)
            require_sense(f"The verdict on {one.key!r} in {one.source}", one.verdict, one.given, one.label, one.at)
        reason = why_idle(one, row, number)
        if reason in IDLE:
            found.idle[reason].append(one)
        else:
            found.usable.append(one)
    return found


def _class_name(verdict: Verdict, number: Mapping[str, int], classes: Sequence[str]) -> str | None:
    """The label as a class's name: a name, or in a table its number. InputError for one that is no class."""
    label = verdict.label
    if label is None or label in number:
        return label
    if label.isdecimal() and int(label) < len(classes):
        return classes[int(label)]
    near = difflib.get_close_matches(label, number, n=1)
    shown = ", ".join(classes[:8]) + (", …" if len(classes) > 8 else "")
    raise InputError(
        f"The verdict on {verdict.key!r} in {verdict.source} gives the label {label!r}, which is no class"
        f"{f'; did you mean {near[0]!r}?' if near else '.'}",
        do=f"Give one of: {shown}.",
    )


def _refuse_strangers(found: Sorted, files: Sequence[Told], split: Split) -> None:
    told = ", ".join(f"{len(which):,}: {IDLE[reason]}" for reason, which in found.idle.items() if which)
    example = next(one for which in found.idle.values() for one in which)
    raise InputError(
        f"No verdict of {', '.join(str(one.file) for one in files)} is about split {split.name!r} of "
        f"{split.store_path} as it is now ({told}; e.g. {example.key!r}).",
        do="Check --store and --split; verdicts on images or labels that changed have to be given again.",
    )


def _fresh(verdicts: Iterable[Verdict], before: Sequence[Verdict]) -> list[Verdict]:
    """Those that the log does not have, each once: a file that is applied again adds nothing."""
    known = {one.identity for one in before}
    fresh: dict[tuple[object, ...], Verdict] = {}
    for one in verdicts:
        if one.identity not in known:
            fresh.setdefault(one.identity, one)
    return list(fresh.values())


def _replaced(fresh: Iterable[Verdict], before: Iterable[Verdict]) -> int:
    """How many times a person now says something else than before."""
    said = {(one.image, one.side): (one.verdict, one.label) for one in before}
    return sum(said.get((one.image, one.side), (one.verdict, one.label)) != (one.verdict, one.label) for one in fresh)


# ---- contradictions


def _touched(contradictions: Iterable[Contradiction], fresh: Iterable[Verdict]) -> list[Contradiction]:
    """Those that the new verdicts take part in; older ones in the store do not stop a file."""
    new = {one.identity for one in fresh}
    return [one for one in contradictions if any(side.identity in new for side in one.sides)]


def _settled(
    contradictions: Sequence[Contradiction],
    fresh: Iterable[Verdict],
    files: Sequence[Told],
    config: ReviewApplyConfig,
) -> list[Verdict]:
    """The verdict preferred of each contradiction, again, as the answer to all before it."""
    new = {one.identity for one in fresh}
    chosen = [_preferred(one, new, files, config.prefer) for one in contradictions]
    open_ones = [one for one, winner in zip(contradictions, chosen, strict=True) if winner is None]
    if open_ones and not config.dry_run:
        told = "; ".join(map(_both_sides, open_ones[:SHOWN])) + (" …" if len(open_ones) > SHOWN else "")
        raise InputError(
            f"Verdicts contradict each other on {len(open_ones):,} image{'s'[: len(open_ones) - 1]}: {told}.",
            so="Which of them counts is for a person to say; nothing was stored.",
            do="See all with --dry-run, then settle them: --prefer latest, --prefer stored, or --prefer FILE.",
        )
    settled = now()
    return [replace(one, settled=settled) for one in chosen if one is not None]


def _preferred(
    one: Contradiction, new: Collection[object], files: Sequence[Told], prefer: str | None
) -> Verdict | None:
    if prefer is None:
        return None
    if prefer == "latest":
        return one.sides[-1]
    if prefer == "stored":
        return next((side for side in reversed(one.sides) if side.identity not in new), None)
    source = _source(files, prefer)
    return next((side for side in reversed(one.sides) if side.source == source), None)


def _both_sides(one: Contradiction) -> str:
    return f"{one.sides[0].key}: " + " against ".join(
        f"{side.verdict}{f' as {side.label}' if side.label else ''} ({side.by or side.source})" for side in one.sides
    )


# ---- as results


def line(verdict: Verdict, holds: str = "") -> VerdictLine:
    return VerdictLine(
        key=verdict.key,
        given=verdict.given,
        verdict=verdict.verdict,
        label=verdict.label,
        by=verdict.by,
        at=verdict.at,
        source=verdict.source,
        holds=holds,
    )


def conflicting(contradictions: Iterable[Contradiction]) -> tuple[Conflicting, ...]:
    return tuple(
        Conflicting(key=one.sides[0].key, sides=tuple(line(side) for side in one.sides)) for one in contradictions
    )
