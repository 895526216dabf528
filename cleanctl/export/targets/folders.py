"""A folder a class, with links to the images or copies of them: what torchvision's and timm's ImageFolder read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cleanctl.export.chosen import Chosen
from cleanctl.export.targets.target import Target, Written, class_folders, file_names, readable_images, with_suffix
from cleanctl.progress import Progress


class _Folders(Target):
    folder = True

    def names(self, chosen: Chosen) -> Sequence[str]:
        folders = class_folders(chosen.classes)
        return [
            f"{folders[label]}/{name}" for label, name in zip(chosen.label_M.tolist(), file_names(chosen.keys))
        ]  # fmt: skip

    def _prepared(self, place: Path, chosen: Chosen) -> list[Path]:
        """The paths to make, in folders that are there: one for each class, so that their order is the label order of
        an ImageFolder only where names sort so; classes.txt has it in any case."""
        for name in class_folders(chosen.classes):
            (place / name).mkdir()
        (place / "classes.txt").write_text("".join(f"{name}\n" for name in chosen.classes), "utf-8")
        return [place / name for name in self.names(chosen)]


class Links(_Folders):
    """Symbolic links to the images where they are."""

    def write(self, place: Path, chosen: Chosen, progress: Progress) -> Written:
        targets, missing = chosen.paths(), 0
        made = self._prepared(place, chosen)
        with progress.track("linking", total=len(made), unit="images") as task:
            for link, path in zip(made, targets, strict=True):
                if path.is_file():
                    link.symlink_to(path)
                else:
                    missing += 1
                task.advance()
        return Written(missing=missing, examples=tuple(self.names(chosen)[:3]))


class Copies(_Folders):
    """The files' bytes, from folders, tars, archives and URLs."""

    def write(self, place: Path, chosen: Chosen, progress: Progress) -> Written:
        made, missing = self._prepared(place, chosen), len(chosen)
        for at, data in readable_images(chosen, progress):
            made[at].with_name(with_suffix(made[at].name, data)).write_bytes(data)
            missing -= 1
        return Written(missing=missing, examples=tuple(self.names(chosen)[:3]))
