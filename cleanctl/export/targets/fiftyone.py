"""A folder of FiftyOne's type FiftyOneImageClassificationDataset: data/ and labels.json."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from cleanctl.export.chosen import Chosen
from cleanctl.export.targets.target import Target, Written, file_names, readable_images, with_suffix
from cleanctl.progress import Progress


class FiftyOne(Target):
    """labels.json: `classes` in label order; `labels`: file name without its ending → class number."""

    folder = True

    def names(self, chosen: Chosen) -> Sequence[str]:
        return [f"data/{name}" for name in _stems_apart(chosen.keys)]

    def write(self, place: Path, chosen: Chosen, progress: Progress) -> Written:
        folder = place / "data"
        folder.mkdir()
        names, labels = _stems_apart(chosen.keys), {}
        for at, data in readable_images(chosen, progress):
            name = with_suffix(names[at], data)
            (folder / name).write_bytes(data)
            labels[Path(name).stem] = int(chosen.label_M[at])
        value = {"classes": list(chosen.classes), "labels": labels}
        (place / "labels.json").write_text(json.dumps(value, ensure_ascii=False), "utf-8")
        return Written(missing=len(chosen) - len(labels), examples=tuple(self.names(chosen)[:3]))


def _stems_apart(keys: Sequence[str]) -> list[str]:
    """File names whose stems differ too, for labels are found by stem: `a.png` beside `a.jpg` becomes `a_png.png`."""
    names = file_names(keys)
    count: dict[str, int] = {}
    for name in names:
        count[Path(name).stem] = count.get(Path(name).stem, 0) + 1
    return [
        name if count[Path(name).stem] == 1 else f"{name.replace('.', '_')}{Path(name).suffix}" for name in names
    ]  # fmt: skip
