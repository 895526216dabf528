"""What an export writes: the chosen samples → one file or one folder that another tool reads.

A new target is one file with a subclass of Target, and one line of `registry.TARGETS` or an entry point of
`cleanctl.targets`. What is written is whole or absent: a temporary file or folder beside its place, then renamed.
"""

from __future__ import annotations

import hashlib
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from cleanctl.errors import InputError
from cleanctl.export.chosen import Chosen
from cleanctl.files.atomic import replacing
from cleanctl.files.sniff import content_type
from cleanctl.progress import Progress

MAX_NAME = 180  # bytes of a file's name
SUFFIXES = {"JPEG": ".jpg", "PNG": ".png", "GIF": ".gif", "WebP": ".webp", "BMP": ".bmp", "TIFF": ".tif"}


@dataclass(frozen=True, kw_only=True)
class Written:
    """missing: samples whose image cannot be read any more, which were left out. examples: of what was written."""

    missing: int = 0
    examples: tuple[str, ...] = ()


class Target(ABC):
    """folder: it makes a folder, else a file. usual_take: which samples, where ExportConfig.take does not say."""

    folder: ClassVar[bool] = False
    usual_take: ClassVar[str] = "kept"

    @abstractmethod
    def write(self, place: Path, chosen: Chosen, progress: Progress) -> Written:
        """Writes to `place`: a new file's path, or a new empty folder. Raises OSError if the disk refuses."""

    @abstractmethod
    def names(self, chosen: Chosen) -> Sequence[str]:
        """What the entries of the chosen samples will be called, a few at least, for `--dry-run`."""


def readable_images(chosen: Chosen, progress: Progress) -> Iterator[tuple[int, bytes]]:
    """(place in M, the file's bytes), in order, without those that cannot be read any more."""
    with progress.track("copying", total=len(chosen), unit="images") as task:
        for at, content in chosen.contents():
            task.advance()
            if not content.reason:
                yield at, content.data


def write_target(target: Target, place: Path, chosen: Chosen, progress: Progress) -> Written:
    """InputError where something lies there already, or where the disk refuses."""
    if place.exists() or place.is_symlink():
        raise InputError(
            f"{place} exists already.", so="An export never overwrites.", do="Remove it, or choose another OUT."
        )
    try:
        if not target.folder:
            with replacing(place) as partial:
                return target.write(partial, chosen, progress)
        with _new_folder(place) as folder:
            return target.write(folder, chosen, progress)
    except OSError as exc:
        raise InputError(f"{place} cannot be written: {exc}.", do="Choose another OUT.") from exc


@contextmanager
def _new_folder(place: Path) -> Iterator[Path]:
    """A folder beside `place` that takes its name if the `with` ends well; what a killed export left goes first."""
    partial = place.with_name(f".{place.name}.partial")
    place.parent.mkdir(parents=True, exist_ok=True)
    if partial.exists():
        shutil.rmtree(partial)
    partial.mkdir()
    try:
        yield partial
        partial.rename(place)
    finally:
        if partial.exists():
            shutil.rmtree(partial, ignore_errors=True)


# ---- names that a folder can hold


def file_names(keys: Sequence[str]) -> list[str]:
    """One distinct plain file name a key: its path with `__` for `/`, shortened with a digest where it is too long."""
    plain = [key.replace("/", "__").lstrip(".") for key in keys]
    seen: dict[str, int] = {}
    for name in plain:
        seen[name.casefold()] = seen.get(name.casefold(), 0) + 1
    return [
        name if seen[name.casefold()] == 1 and 0 < len(name.encode()) <= MAX_NAME else _digested(key, name)
        for key, name in zip(keys, plain, strict=True)
    ]


def _digested(key: str, name: str) -> str:
    stem, dot, suffix = name.rpartition(".")
    stem, suffix = (stem, dot + suffix) if stem and len(suffix) <= 5 else (name, "")
    short = stem.encode()[: MAX_NAME - 30].decode(errors="ignore")
    return f"{short}-{hashlib.blake2b(key.encode(errors='surrogateescape'), digest_size=6).hexdigest()}{suffix}"


def class_folders(classes: Sequence[str]) -> list[str]:
    """One distinct plain folder name a class: what no folder may be called is replaced by `_`."""
    plain = []
    for name in classes:
        safe = "".join("_" if char in '/\\:*?"<>|' or not char.isprintable() else char for char in name).strip(" .")
        plain.append(safe.encode()[:MAX_NAME].decode(errors="ignore") or "_")
    folded = [name.casefold() for name in plain]
    return [
        name if folded.count(name.casefold()) == 1 else f"{name}-{place}" for place, name in enumerate(plain)
    ]  # fmt: skip


def with_suffix(name: str, data: bytes) -> str:
    """The name with the ending that its content asks for, where it has none."""
    known = Path(name).suffix.lower() in (*SUFFIXES.values(), ".jpeg", ".jfif", ".tiff")
    return name if known else name + SUFFIXES.get(content_type(data), "")
