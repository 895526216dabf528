"""Which image files and tars lie below a folder, as sorted keys.

In: a folder. Out: keys, POSIX paths relative to it. Nothing is opened and nothing is written: a million files are
walked with `os.scandir`, whose entries know their kind without a further system call.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cleanctl.files.keys import Keys, KeysBuilder

IMAGE_SUFFIXES = frozenset(
    (
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".gif", ".bmp", ".dib", ".tif", ".tiff"),
        *(".ppm", ".pgm", ".pnm", ".avif", ".heic", ".heif", ".jp2"),
    )
)


TAR_SUFFIX = ".tar"
PACKED_SUFFIXES = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".tar.lz4")


@dataclass(frozen=True, kw_only=True)
class Scan:
    """keys: images, sorted, distinct. tars, packed: tars and compressed ones, sorted. unreadable: folders that could
    not be listed. badly_named: names that are not UTF-8."""

    keys: Keys
    tars: tuple[str, ...] = ()
    packed: tuple[str, ...] = ()
    unreadable: tuple[str, ...] = ()
    badly_named: int = 0

    def notes(self) -> tuple[str, ...]:
        notes = [f"The folder {name!r} could not be listed and is left out." for name in self.unreadable]
        if self.badly_named:
            left_out = "1 file is" if self.badly_named == 1 else f"{self.badly_named:,} files are"
            notes.append(f"{left_out} left out for a name that is not valid UTF-8. Rename what should be read.")
        return tuple(notes)


def find_images(root: Path | str) -> Scan:
    """Every file below `root` whose suffix names an image, hidden ones apart.

    Links to files are followed. Links to folders are followed after all real folders have been walked, and each real
    folder is walked once: neither a loop nor a second way to the same folder gives an image twice.
    """
    walk = _Walk()
    walk.visit(os.fspath(root), "")
    while walk.linked:
        walk.visit(*walk.linked.popleft())
    return Scan(
        keys=walk.keys.keys().sorted()[0],
        tars=tuple(sorted(walk.tars)),
        packed=tuple(sorted(walk.packed)),
        unreadable=tuple(walk.unreadable),
        badly_named=walk.badly_named,
    )


class _Walk:
    def __init__(self) -> None:
        self.keys = KeysBuilder()
        self.tars: list[str] = []
        self.packed: list[str] = []
        self.linked: deque[tuple[str, str]] = deque()
        self.unreadable: list[str] = []
        self.badly_named = 0
        self._seen: set[tuple[int, int]] = set()

    def visit(self, path: str, prefix: str) -> None:
        """Walks one tree of real folders; `prefix` is its key, ending in a slash, or empty at the root."""
        waiting = [(path, prefix)]
        while waiting:
            path, prefix = waiting.pop()
            try:
                stat = os.stat(path)
                if (stat.st_dev, stat.st_ino) in self._seen:
                    continue
                self._seen.add((stat.st_dev, stat.st_ino))
                with os.scandir(path) as entries:
                    waiting.extend(self._sort_out(entries, prefix))
            except OSError:
                self.unreadable.append(prefix or ".")

    def _sort_out(self, entries: Iterable[os.DirEntry[str]], prefix: str) -> list[tuple[str, str]]:
        """Takes the images, remembers the linked folders, and hands back the real sub-folders."""
        folders = []
        for entry in entries:
            name = entry.name
            if name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                folders.append((entry.path, f"{prefix}{name}/"))
            elif (kind := file_kind(name)) is not None:
                self._take(prefix + name, kind)
            elif entry.is_symlink() and entry.is_dir():
                self.linked.append((entry.path, f"{prefix}{name}/"))
        return sorted(folders, reverse=True)

    def _take(self, key: str, kind: str) -> None:
        if is_utf8(key):
            getattr(self, kind).append(key)
        else:
            self.badly_named += 1


def file_kind(name: str) -> str | None:
    """The field of a Scan that a file of this name belongs to, if any."""
    suffix = os.path.splitext(name)[1].lower()
    if suffix in IMAGE_SUFFIXES:
        return "keys"
    if suffix == TAR_SUFFIX:
        return "tars"
    return "packed" if name.lower().endswith(PACKED_SUFFIXES) else None


def is_utf8(text: str) -> bool:
    """Whether a name was valid UTF-8: one that was not holds surrogates."""
    if text.isprintable():
        return True
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
