"""One JSON file in COCO's manner: images, categories, and an annotation an image with its category."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from cleanctl.export.chosen import Chosen
from cleanctl.export.targets.target import Target, Written
from cleanctl.progress import Progress


class Coco(Target):
    """Numbers of images and annotations count from 1, categories have the class numbers. Images carry no size, and
    annotations no box: labels are of whole images. `score` is the probability of the given label."""

    def names(self, chosen: Chosen) -> Sequence[str]:
        return chosen.keys[:3].tolist()

    def write(self, place: Path, chosen: Chosen, progress: Progress) -> Written:
        value = {
            "info": {"description": f"selection {chosen.selection} of {chosen.split}, exported by cleanctl"},
            "images": [{"id": at + 1, "file_name": key} for at, key in enumerate(chosen.keys)],
            "categories": [{"id": k, "name": name} for k, name in enumerate(chosen.classes)],
            "annotations": [
                {
                    "id": at + 1,
                    "image_id": at + 1,
                    "category_id": int(chosen.label_M[at]),
                    "score": float(chosen.p_label_M[at]),
                    "given_category_id": int(chosen.given_M[at]),
                }
                for at in range(len(chosen))
            ],
        }
        place.write_text(json.dumps(value), "utf-8")
        return Written(examples=tuple(self.names(chosen)))
