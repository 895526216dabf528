"""ANIMAL-10N: training/ and testing/ with files `<label>_<id>.jpg`. Its authors give no order of the files.

Two orders of the names are in use (docs/method.md D.4): the dataset's page has 4 cheetah and 5 jaguar, the published
code 4 jaguar and 5 cheetah. Labels are the files' either way; only prompts differ. The default is the code's, and
embedding ends with a note that tells the zero-shot accuracy of both.
"""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from cleanctl.datasets.adapter import DatasetRequest
from cleanctl.datasets.published.lists import Home, PublishedDataset, choose, class_names, listed_dataset
from cleanctl.records import Dataset, OtherOrder

CLASSES = (
    "cat", "lynx", "wolf", "coyote", "jaguar", "cheetah", "chimpanzee", "orangutan", "hamster", "guinea pig"
)  # fmt: skip
FOLDERS = {"training": "train", "testing": "test"}
ORDERS = {"jaguar-cheetah": "4 is jaguar, as in the published code", "cheetah-jaguar": "4 is cheetah, as on its page"}

_FILE = re.compile(r"(\d)_\d+\.jpe?g", re.IGNORECASE)
_LOOKED_AT = 20


class Animal10N(PublishedDataset):
    name = "animal10n"
    origin = "ANIMAL-10N's archive of images (raw_image_ver)"
    takes = ("--classes", "--variant")
    counts: ClassVar = {"train": 50_000, "test": 5_000}

    def is_at(self, root: Path) -> bool:
        """Files named by a digit and a number lie directly in training/ and in testing/."""
        return all(_named_by_label(root / folder) for folder in FOLDERS)

    def read(self, home: Home, request: DatasetRequest) -> Dataset:
        order = "jaguar-cheetah" if request.variant is None else choose(request, self.name, ORDERS)
        pairs: dict[str, list[tuple[str, int]]] = {}
        left_out = 0
        for folder, split in FOLDERS.items():
            home.require_folder(folder, f"the images of the {split} split, <label>_<id>.jpg")
            pairs[split] = []
            for key in home.images(folder):
                match = _FILE.fullmatch(key.rpartition("/")[2])
                if match is None:
                    left_out += 1
                else:
                    pairs[split].append((key, int(match[1])))
        other = next(variant for variant in ORDERS if variant != order)
        dataset = listed_dataset(request, self.name, class_names(request, _names(order)), pairs, left_out=left_out)
        if request.classes is not None:
            return dataset
        return replace(dataset, other_order=OtherOrder(classes=_names(other), option=f"--variant {other}"))


def _names(order: str) -> tuple[str, ...]:
    return CLASSES if order == "jaguar-cheetah" else (*CLASSES[:4], CLASSES[5], CLASSES[4], *CLASSES[6:])


def _named_by_label(folder: Path) -> bool:
    if not folder.is_dir():
        return False
    with os.scandir(folder) as entries:
        names = [entry.name for entry, _ in zip(entries, range(_LOOKED_AT)) if not entry.name.startswith(".")]
    return bool(names) and all(_FILE.fullmatch(name) for name in names)
