"""A folder that `datasets.load_dataset(FOLDER)` reads (Hugging Face): images, metadata.jsonl, and a card with names."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from cleanctl.export.chosen import Chosen
from cleanctl.export.targets.target import Target, Written, file_names, readable_images, with_suffix
from cleanctl.progress import Progress


class HuggingFace(Target):
    """Features image, label (number), label_name, key, given_label, suggested_label, p_label, keep."""

    folder = True

    def names(self, chosen: Chosen) -> Sequence[str]:
        return [f"{chosen.split}/{name}" for name in file_names(chosen.keys)]

    def write(self, place: Path, chosen: Chosen, progress: Progress) -> Written:
        folder, missing = place / chosen.split, len(chosen)
        folder.mkdir()
        (place / "README.md").write_text(_card(chosen), "utf-8")
        names = file_names(chosen.keys)
        with (folder / "metadata.jsonl").open("w", encoding="utf-8") as lines:
            for at, data in readable_images(chosen, progress):
                name = with_suffix(names[at], data)
                (folder / name).write_bytes(data)
                lines.write(json.dumps({"file_name": name, **_about(chosen, at)}) + "\n")
                missing -= 1
        return Written(missing=missing, examples=tuple(self.names(chosen)[:3]))


def _about(chosen: Chosen, at: int) -> dict[str, object]:
    return {
        "label": int(chosen.label_M[at]),
        "label_name": chosen.label_name(at),
        "key": chosen.keys[at],
        "given_label": int(chosen.given_M[at]),
        "suggested_label": int(chosen.suggested_M[at]),
        "p_label": float(chosen.p_label_M[at]),
        "keep": bool(chosen.keep_M[at]),
    }


def _card(chosen: Chosen) -> str:
    """The dataset's card; its classes in label order, as JSON, which YAML reads."""
    names = json.dumps(list(chosen.classes), ensure_ascii=False)
    return (
        "---\n"
        "task_categories:\n- image-classification\n"
        f"class_names: {names}\n"
        "---\n\n"
        f"Selection {json.dumps(chosen.selection)} of split {json.dumps(chosen.split)}, exported by cleanctl.\n"
    )
