"""Lists of image files, for tools that read the files where they are."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from cleanctl.export.chosen import Chosen
from cleanctl.export.targets.target import Target, Written
from cleanctl.progress import Progress


class ImageList(Target):
    """A text file: an absolute path a line."""

    def write(self, place: Path, chosen: Chosen, progress: Progress) -> Written:
        paths = self.names(chosen)
        with place.open("w", encoding="utf-8", errors="surrogateescape", newline="\n") as file:
            file.writelines(f"{path}\n" for path in paths)
        return Written(examples=tuple(paths[:3]))

    def names(self, chosen: Chosen) -> Sequence[str]:
        return [str(path) for path in chosen.paths()]


class Manifest(Target):
    """A CSV of ImageFolder's samples: path (absolute), class_index, class_name."""

    def write(self, place: Path, chosen: Chosen, progress: Progress) -> Written:
        paths = self.names(chosen)
        with place.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(("path", "class_index", "class_name"))
            for at, path in enumerate(paths):
                writer.writerow((path, int(chosen.label_M[at]), chosen.label_name(at)))
        return Written(examples=tuple(paths[:3]))

    def names(self, chosen: Chosen) -> Sequence[str]:
        return [str(path) for path in chosen.paths()]
