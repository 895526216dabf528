"""CUB-200-2011: lists of `id value` lines beside images/, joined by the image's id, in the order of images.txt.

images.txt               `1 001.Black_footed_Albatross/Black_Footed_Albatross_0046_18.jpg`
image_class_labels.txt   `1 1`, classes counted from 1
train_test_split.txt     `1 0`, 1 for training
classes.txt              `1 001.Black_footed_Albatross`, which is called "Black footed Albatross"
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from cleanctl.datasets.adapter import DatasetRequest
from cleanctl.datasets.published.lists import Home, PublishedDataset, class_names, listed_dataset
from cleanctl.errors import InputError
from cleanctl.records import Dataset

IMAGES, LABELS, SPLITS, CLASSES = "images.txt", "image_class_labels.txt", "train_test_split.txt", "classes.txt"


class Cub(PublishedDataset):
    name = "cub-200-2011"
    origin = "CUB_200_2011.tgz"
    counts: ClassVar = {"train": 5_994, "test": 5_794}

    def is_at(self, root: Path) -> bool:
        return all((root / file).is_file() for file in (IMAGES, LABELS, SPLITS))

    def read(self, home: Home, request: DatasetRequest) -> Dataset:
        paths = _by_id(home, IMAGES, "the path of each image by its id")
        labels = _numbers_by_id(home, LABELS, "the class of each image by its id")
        training = _numbers_by_id(home, SPLITS, "1 for each training image, by its id")
        names = _numbered_names(home)
        folder = home.require_folder("images", "the images")
        for file, known in ((LABELS, labels), (SPLITS, training)):
            unknown = [number for number in paths if number not in known]
            if unknown:
                raise InputError(
                    f"{len(unknown)} images of {IMAGES} are not in {file}, e.g. {paths[unknown[0]]!r}.",
                    do=f"Take both again from {home.origin}.",
                )
        pairs: dict[str, list[tuple[str, int]]] = {"train": [], "test": []}
        for number, path in paths.items():
            pairs["train" if training[number] else "test"].append((f"{folder}/{path}", labels[number] - 1))
        return listed_dataset(request, self.name, class_names(request, names), pairs, ordered=pairs)


def _by_id(home: Home, file: str, holds: str) -> dict[int, str]:
    values: dict[int, str] = {}
    for number, line in home.lines(file, holds):
        identity, _, value = line.partition(" ")
        if not identity.isdecimal() or not value or int(identity) in values:
            raise home.odd(file, number, line, "a new id and a value")
        values[int(identity)] = value
    return values


def _numbers_by_id(home: Home, file: str, holds: str) -> dict[int, int]:
    values = _by_id(home, file, holds)
    odd = next((identity for identity, value in values.items() if not value.isdecimal()), None)
    if odd is not None:
        raise InputError(
            f"The image {odd} has {values[odd]!r} in {str(home.root / file)!r}, which is no number.",
            do=f"Take the file again from {home.origin}.",
        )
    return {identity: int(value) for identity, value in values.items()}


def _numbered_names(home: Home) -> tuple[str, ...]:
    """In the order of the classes' ids, which must be 1, 2, 3 …"""
    folders = _by_id(home, CLASSES, "the name of each class")
    if sorted(folders) != list(range(1, len(folders) + 1)):
        raise InputError(f"The classes of {str(home.root / CLASSES)!r} are not numbered from 1 without gaps.")
    return tuple(folders[number].partition(".")[2].replace("_", " ") for number in sorted(folders))
