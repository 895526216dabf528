"""What the server of the review page does behind its addresses: images of known rows, verdicts out of and into the log.

The split is held as it was when the page was made, so that a verdict is about what the person saw: an image whose file
is another one by now is not shown, and a verdict on another content or label is refused.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from cleanctl import user_files
from cleanctl.files.fingerprints import digest_of
from cleanctl.images.decode import UnreadableImage, decode_reduced
from cleanctl.records import Storage
from cleanctl.review.files import Entry, require_sense
from cleanctl.store import Split
from cleanctl.store.decisions import Decisions, Verdict, now, resolve
from cleanctl.store.standing import digest_text, standing

SOURCE = "cleanctl review serve"
SIDE, QUALITY = 1024, 88  # of images: pixels of the long side


class Refused(Exception):
    """A verdict that is not taken; says why."""


@dataclass
class Desk:
    """One page at work. by: whose verdicts they are where the page does not say. taken: verdicts since the start."""

    split: Split
    classes: tuple[str, ...]
    files: Storage | None
    by: str = ""
    taken: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._keys = self.split.keys()
        self._label_N = self.split.label_N()
        self._digest_N = self.split.fingerprints().digest_N16
        self._log = Decisions(self.split.store_path, self.split.name)
        self._told: dict[tuple[str, str], list[Verdict]] = {}  # by image; without what others store from now on
        for one in self._log.read():
            self._told.setdefault(one.image, []).append(one)

    @property
    def place(self) -> Path:
        return self._log.path

    def verdicts(self) -> list[dict[str, Any]]:
        """What holds now, as the page reads it; also what others and other processes stored."""
        found = standing(self.split, self.classes)
        return [_entry(one) for one in (*found.verdicts, *found.skipped)]

    def take(self, values: Any) -> bool:
        """Stores one verdict durably. True if another person's contradicts it.

        Raises InputError for what is no verdict, Refused for one that does not fit, StoreError of the disk.
        """
        entry = user_files.checked("The verdict", values, Entry)
        row = int(self._keys.rows_of([entry.key])[0])
        if row < 0:
            raise Refused(f"There is no image {entry.key!r} in split {self.split.name!r}.")
        verdict = self._verdict(entry, row)
        with self._lock:
            told = self._told.setdefault(verdict.image, [])
            mine = [one.identity for one in told if one.side == verdict.side]
            if mine[-1:] != [verdict.identity]:  # else a request that was sent again
                self._log.append([verdict])
                told.append(verdict)
                self.taken += 1
            return bool(resolve(told)[1])

    def _verdict(self, entry: Entry, row: int) -> Verdict:
        digest, given = digest_text(self._digest_N[row]), self.classes[self._label_N[row]]
        if entry.digest and entry.digest != digest:
            raise Refused(f"{entry.key!r} has another content than the one that was judged.")
        if entry.given is not None and entry.given != given:
            raise Refused(f"{entry.key!r} is labelled {given!r}, not {entry.given!r}.")
        if entry.label is not None and entry.label not in self.classes:
            raise Refused(f"{entry.label!r} is no class.")
        at = entry.at or now()
        require_sense("The verdict", entry.verdict, given, entry.label, at)
        return Verdict(
            key=entry.key,
            digest=digest,
            given=given,
            verdict=entry.verdict,
            label=entry.label if entry.verdict == "relabel" else None,
            by=entry.by or self.by,
            at=at,
            source=SOURCE,
        )

    def image(self, row: int) -> bytes | None:
        """A row's image as JPEG, upright, at most SIDE pixels wide and high; None where there is none to show."""
        if self.files is None or not 0 <= row < len(self._keys):
            return None
        with self._lock:  # storages of tars keep a place in an open file
            content = next(iter(self.files.read([self._keys[row]])))
        digest_16 = self._digest_N[row]
        if content.reason or (digest_16.any() and digest_of(content.data) != digest_16.tobytes()):
            return None
        try:
            image = decode_reduced(content.data, lambda width, height: min(1.0, SIDE / max(width, height)))[0]
        except UnreadableImage:
            return None
        image.thumbnail((SIDE, SIDE), Image.Resampling.BICUBIC)
        buffer = BytesIO()
        image.save(buffer, "JPEG", quality=QUALITY)
        return buffer.getvalue()


def _entry(one: Verdict) -> dict[str, Any]:
    told: dict[str, Any] = {"key": one.key, "digest": one.digest or None, "given": one.given, "verdict": one.verdict}
    told |= {"label": one.label} if one.label is not None else {}
    return told | {"by": one.by, "at": one.at}
