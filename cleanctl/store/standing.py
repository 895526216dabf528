"""Which verdicts of a split's log hold for its rows as they are now, and which do not and why.

A verdict is about one image under one label. It holds while the split has its key, the image's content is the one that
was looked at, and the label is the one that was judged; else it waits in the log, and holds again when they come back.

Legend: V rows with a verdict that holds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from cleanctl.store.decisions import DIGEST_CHARACTERS, Contradiction, Decisions, Verdict, resolve
from cleanctl.store.schema import BLOCK_ROWS
from cleanctl.store.split import Split

UNDECIDED, KEEP, DROP, RELABEL = range(4)
WORDS = ("", "keep", "drop", "relabel")


@dataclass(frozen=True, kw_only=True)
class RowNow:
    """A row that a verdict may be about. digest: as in Verdict. given: its label's name."""

    row: int
    digest: str
    given: str


@dataclass(frozen=True, kw_only=True)
class Standing:
    """What people decided, as it holds for a split now.

    row_V: int64, ascending, the rows that are decided. code_V: int8, KEEP, DROP or RELABEL. label_V: int32, the class
    that the row has by the verdict, -1 for DROP. verdicts: theirs, in the same order. Of the other verdicts: skipped
    (looked at, not decided), changed (another content now), relabelled (another label now, or an unknown class), gone
    (no such key). contradictions: of images that the split has as they were judged.
    """

    row_V: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    code_V: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int8))
    label_V: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int32))
    verdicts: tuple[Verdict, ...] = ()
    skipped: tuple[Verdict, ...] = ()
    changed: tuple[Verdict, ...] = ()
    relabelled: tuple[Verdict, ...] = ()
    gone: tuple[Verdict, ...] = ()
    contradictions: tuple[Contradiction, ...] = ()

    def __len__(self) -> int:
        return len(self.row_V)

    def count(self, code: int) -> int:
        return int((self.code_V == code).sum())

    def fingerprint(self) -> str:
        """Of the decisions that hold, whoever took them and when; "" without any."""
        if not len(self):
            return ""
        digest = hashlib.sha256()
        for one in self.verdicts:
            digest.update(
                repr((one.key, one.digest, one.given, one.verdict, one.label)).encode(errors="backslashreplace")
            )
        return digest.hexdigest()[:16]

    def idle(self) -> str:
        """How many verdicts do not hold and why, in words; "" where all do."""
        reasons = (
            (self.changed, "because the image has another content now"),
            (self.relabelled, "because the label is another one now"),
            (self.gone, "because the image is not in the split any more"),
        )
        return ", ".join(f"{len(which):,} {why}" for which, why in reasons if which)


def standing(split: Split, classes: Sequence[str]) -> Standing:
    """Reads the log of the split; of the split itself nothing where the log is empty."""
    latest, contradictions = resolve(Decisions(split.store_path, split.name).read())
    if not latest:
        return Standing()
    here = rows_now(split, {key for key, _ in latest}, classes)
    number = {name: index for index, name in enumerate(classes)}
    held: list[tuple[int, int, int, Verdict]] = []
    idle: dict[str, list[Verdict]] = {"skipped": [], "changed": [], "relabelled": [], "gone": []}
    for verdict in latest.values():
        now = here.get(verdict.key)
        if reason := why_idle(verdict, now, number):
            idle[reason].append(verdict)
            continue
        assert now is not None
        code, label = _meaning(verdict, now)
        held.append((now.row, code, number[label] if label is not None else -1, verdict))
    held.sort(key=lambda item: item[0])
    return Standing(
        row_V=np.array([row for row, *_ in held], np.int64),
        code_V=np.array([code for _, code, *_ in held], np.int8),
        label_V=np.array([label for *_, label, _ in held], np.int32),
        verdicts=tuple(verdict for *_, verdict in held),
        contradictions=tuple(one for one in contradictions if _is_here(one.sides[0], here)),
        **{name: tuple(which) for name, which in idle.items()},
    )


def why_idle(verdict: Verdict, now: RowNow | None, number: Mapping[str, int]) -> str:
    """The field of Standing that a verdict belongs to which does not hold; "" for one that does. number: of classes."""
    if now is None:
        return "gone"
    if now.digest != verdict.digest:
        return "changed"
    if verdict.verdict == "skip":
        return "skipped"
    known = verdict.label is None or verdict.label in number
    return "" if known and now.given in (verdict.given, verdict.label) else "relabelled"


def _meaning(verdict: Verdict, now: RowNow) -> tuple[int, str | None]:
    """(code, name of the class by the verdict). A label that was corrected as the verdict says is right now."""
    if verdict.verdict == "drop":
        return DROP, None
    if verdict.verdict == "relabel" and verdict.label != now.given:
        return RELABEL, verdict.label
    return KEEP, now.given


def _is_here(verdict: Verdict, here: Mapping[str, RowNow]) -> bool:
    now = here.get(verdict.key)
    return now is not None and now.digest == verdict.digest


def rows_now(split: Split, keys: Collection[str], classes: Sequence[str]) -> dict[str, RowNow]:
    """key → its row as it is now, for those of `keys` that the split has; a block of the split in memory at a time."""
    found: dict[str, RowNow] = {}
    label_N = split.label_N() if keys else np.zeros(0, np.int32)
    for row_M, key_M in _blocks_with(split, keys):
        rows = slice(int(row_M[0]), int(row_M[-1]) + 1)
        digest_B = split.fingerprints(rows).digest_N16
        for row, key in zip(row_M.tolist(), key_M, strict=True):
            digest = digest_text(digest_B[row - rows.start])
            found[key] = RowNow(row=row, digest=digest, given=classes[label_N[row]])
    return found


def _blocks_with(split: Split, keys: Collection[str]) -> Iterator[tuple[np.ndarray, list[str]]]:
    """Rows whose key is among `keys`, and their keys, block by block."""
    for start in range(0, split.num_rows if keys else 0, BLOCK_ROWS):
        key_B = split.keys(slice(start, start + BLOCK_ROWS))
        at_M = [at for at, key in enumerate(key_B) if key in keys]
        if at_M:
            yield start + np.array(at_M, np.int64), [key_B[at] for at in at_M]


def digest_text(digest_16: np.ndarray) -> str:
    """A row's content digest, (16,) uint8, as verdicts name it; "" where the store has none."""
    return digest_16.tobytes().hex()[:DIGEST_CHARACTERS] if digest_16.any() else ""


def dataset_fingerprint(split: Split) -> str:
    """Of the keys of the split, in order: which set of images a file of verdicts was made from."""
    return str(split.attributes.get("keys_sha256", ""))
