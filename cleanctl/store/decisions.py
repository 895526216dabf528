"""What people decided of labels: an append-only log for each split, `.decisions/<split>.jsonl` inside the store.

A line is a verdict as JSON, sealed with its CRC-32; it names its image by key and by the digest of the file's content,
never by row, so that it survives whatever happens to the embeddings. Lines are never changed: who changes their mind
adds one. A batch is synchronised before `append` returns. A kill in the middle leaves whole lines and at most a part
of one, which readers ignore and the next writer cuts off: it was never acknowledged.

Which verdicts hold for the rows of a split is in `cleanctl.store.standing`.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from cleanctl.files.atomic import reporting_disk_errors, sync_folder
from cleanctl.store.files import DamageError
from cleanctl.store.locks import decisions_lock

Decision = Literal["keep", "drop", "relabel", "skip", "withdrawn"]
FOLDER = ".decisions"
DIGEST_CHARACTERS = 16  # of a content digest as hex: what a verdict names its image's content by
SEAL = ',"crc":"'


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """One person's word on one label.

    key, digest: which image; digest is the first 16 hex digits of the content's digest, "" where the store has none
    (imported arrays). given: name of the label that was judged. verdict: `keep` the label is right, `drop` it is wrong
    (or the image shows no class), `relabel` it is wrong and `label` is right, `skip` looked at and not decided,
    `withdrawn` takes back what the same person said. by: a name, or "". at: ISO 8601 time, as given. source: the file
    it came from, or the verb. settled: the time at which it was chosen among verdicts that contradict each other, ""
    where it was not; all earlier lines on the image are then answered.
    """

    key: str
    digest: str
    given: str
    verdict: Decision
    label: str | None = None
    by: str = ""
    at: str
    source: str
    settled: str = ""

    @property
    def image(self) -> tuple[str, str]:
        return self.key, self.digest

    @property
    def says(self) -> str:
        """The class that the image has by it; "" where it has none of them, or where nothing is decided."""
        return (self.given if self.verdict == "keep" else self.label) or ""

    @property
    def side(self) -> str:
        """Whose word it is: a person's, or of a nameless one the file's."""
        return self.by or f"\0{self.source}"

    @property
    def when(self) -> float:
        """Seconds since 1970 at which it was given, or settled."""
        return seconds_of(self.settled or self.at)

    @property
    def identity(self) -> tuple[Any, ...]:
        """The same verdict, from whichever file it is read."""
        return self.key, self.digest, self.verdict, self.label, self.by, self.at


@dataclass(frozen=True, kw_only=True)
class Contradiction:
    """Verdicts of several people, or of several nameless files, on one image that cannot all be right; by time."""

    sides: tuple[Verdict, ...]


@lru_cache(maxsize=65_536)
def seconds_of(at: str) -> float:
    """Of an ISO 8601 time; UTC where it names no zone. Raises ValueError."""
    time = datetime.fromisoformat(at)
    return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()


def now() -> str:
    """The time as verdicts write it, to a millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Decisions:
    """The log of one split. `store_path` is the store's folder."""

    def __init__(self, store_path: Path, split: str) -> None:
        self.store_path, self.split = store_path, split
        self.path = store_path / FOLDER / f"{split}.jsonl"

    def read(self) -> list[Verdict]:
        """All verdicts, oldest line first; none where nobody decided. DamageError for a line that was altered."""
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return []
        lines = data.split(b"\n")[:-1]  # what follows the last end of line was not acknowledged
        return [self._parsed(line, number) for number, line in enumerate(lines, start=1)]

    def append(self, verdicts: Sequence[Verdict]) -> None:
        """Makes verdicts durable. Waits for another process that appends; raises StoreError if it does not end, or if
        the disk refuses: then none of them is there."""
        if not verdicts:
            return
        data = b"".join(_line(one) for one in verdicts)
        with decisions_lock(self.store_path), reporting_disk_errors(self.path):
            fresh = not self.path.exists()
            self.path.parent.mkdir(exist_ok=True)
            with self.path.open("ab+") as file:
                whole = _whole_length(file)
                file.truncate(whole)
                try:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                except OSError:
                    file.truncate(whole)
                    raise
            if fresh:
                sync_folder(self.path.parent)
                sync_folder(self.store_path)

    def _parsed(self, line: bytes, number: int) -> Verdict:
        text, _, seal = line.decode("ascii", errors="replace").rpartition(SEAL)
        try:
            if seal != f'{zlib.crc32(text.encode("ascii", errors="replace")):08x}"}}':
                raise ValueError("it does not have its checksum")
            return Verdict(**json.loads(text + "}"))
        except (ValueError, TypeError) as exc:
            raise DamageError.of(
                self.path, f"line {number}: {exc}", "Delete that line, or bring the file back from a copy."
            ) from exc


def _line(verdict: Verdict) -> bytes:
    values = {name: value for name, value in vars(verdict).items() if value not in (None, "")}
    text = json.dumps({"digest": "", "given": "", **values}, separators=(",", ":"))[:-1]
    return f'{text}{SEAL}{zlib.crc32(text.encode("ascii")):08x}"}}\n'.encode("ascii")


def _whole_length(file: Any) -> int:
    """Bytes of the file up to its last end of line."""
    end = file.seek(0, os.SEEK_END)
    while end > 0:
        start = max(0, end - 65_536)
        file.seek(start)
        at = file.read(end - start).rfind(b"\n")
        if at >= 0:
            return int(start + at + 1)
        end = start
    return 0


# ---- what a log says


def resolve(log: Iterable[Verdict]) -> tuple[dict[tuple[str, str], Verdict], list[Contradiction]]:
    """(image → the latest verdict on it, contradictions), images in the order of their first line.

    Each side counts with its latest verdict, skips only where nobody decided, withdrawn ones not at all. Sides that
    decided otherwise are a contradiction; the latest of them is given all the same.
    """
    told: dict[tuple[str, str], dict[str, Verdict]] = {}
    for one in log:
        sides = told.setdefault(one.image, {})
        if one.settled:
            sides.clear()
        before = sides.pop(one.side, None)
        sides[one.side] = one if before is None or one.when >= before.when else before
    latest, contradictions = {}, []
    for image, sides in told.items():
        here = [one for one in sides.values() if one.verdict != "withdrawn"]
        decided = sorted((one for one in here if one.verdict != "skip"), key=lambda one: one.when)
        if here:
            latest[image] = decided[-1] if decided else max(here, key=lambda one: one.when)
        if len({one.says for one in decided}) > 1:
            contradictions.append(Contradiction(sides=tuple(decided)))
    return latest, contradictions


# ---- a store that is recreated keeps what people decided


def keep_decisions(removed: Path, store_path: Path) -> None:
    """Moves the logs of a store that was moved to `removed` back to where the store was, if there are any."""
    kept = removed / FOLDER
    if not kept.is_dir() or (store_path / FOLDER).exists():
        return
    with reporting_disk_errors(store_path):
        store_path.mkdir(exist_ok=True)
        kept.rename(store_path / FOLDER)
        sync_folder(store_path)
        sync_folder(store_path.parent)
