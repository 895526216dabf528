"""Stanford-Cars: in class folders, as most copies are handed on, or by the devkit's MATLAB files.

    train/<class>/*, test/<class>/*          class folders; every name ends in a year, "AM General Hummer SUV 2000"
    devkit/cars_meta.mat                     class_names
    devkit/cars_train_annos.mat              annotations: class (from 1) and fname, in cars_train/
    cars_test_annos_withlabels.mat           the same for cars_test/; here or in devkit/

Classes are the names in sorted order in both, as published code has them; the devkit's own numbers differ in places. A
class whose name has a slash ("Ram C/V …") is a folder with a dash.
"""

from __future__ import annotations

import re
import zlib
from pathlib import Path
from typing import Any, ClassVar

from cleanctl.datasets.adapter import DatasetRequest
from cleanctl.datasets.published.lists import Home, PublishedDataset, class_names, listed_dataset
from cleanctl.errors import InputError
from cleanctl.records import Dataset

META, TRAIN, TEST = "cars_meta.mat", "cars_train_annos.mat", "cars_test_annos_withlabels.mat"
_YEAR = re.compile(r".+ (19|20)\d\d")


class StanfordCars(PublishedDataset):
    name = "stanford-cars"
    origin = "the Stanford cars devkit (car_devkit.tgz; the test labels are a file of their own)"
    counts: ClassVar = {"train": 8_144, "test": 8_041}

    def is_at(self, root: Path) -> bool:
        if (root / "devkit" / META).is_file() or (root / META).is_file():
            return True
        home = Home(self.name, self.origin, root)
        splits = [home.folders(split) if (root / split).is_dir() else [] for split in ("train", "test")]
        return all(splits) and all(_YEAR.fullmatch(name) for names in splits for name in names)

    def read(self, home: Home, request: DatasetRequest) -> Dataset:
        if (home.root / "devkit").is_dir() or (home.root / META).is_file() or not (home.root / "train").is_dir():
            return self._from_devkit(home, request)
        return self._from_folders(home, request)

    def _from_folders(self, home: Home, request: DatasetRequest) -> Dataset:
        home.require_folder("test", "the test images, a folder a class")
        names = home.folders("train")
        pairs: dict[str, list[tuple[str, int]]] = {"train": [], "test": []}
        for split, found in pairs.items():
            unknown = sorted(set(home.folders(split)) - set(names))
            if unknown:
                raise InputError(f"The folder {split}/{unknown[0]} of {str(home.root)!r} is no class of train/.")
            for label, name in enumerate(names):
                found += [(key, label) for key in home.images(f"{split}/{name}")]
        return listed_dataset(request, self.name, class_names(request, tuple(names)), pairs)

    def _from_devkit(self, home: Home, request: DatasetRequest) -> Dataset:
        names = [str(name) for name in _mat(home, META, "class_names", "the classes' names").reshape(-1).tolist()]
        number = {name: label for label, name in enumerate(sorted(names))}
        pairs: dict[str, list[tuple[str, int]]] = {}
        for split, file in (("train", TRAIN), ("test", TEST)):
            folder = home.require_folder(f"cars_{split}", f"the {split} images")
            if (home.root / folder / folder).is_dir():  # as one mirror packs them
                folder = f"{folder}/{folder}"
            rows = _mat(home, file, "annotations", f"the class of each {split} image")
            pairs[split] = [
                (f"{folder}/{name}", number[names[label - 1]])
                for name, label in _labelled(home, file, rows, len(names))
            ]
        return listed_dataset(request, self.name, class_names(request, tuple(number)), pairs, ordered=pairs)


def _labelled(home: Home, file: str, rows: Any, classes: int) -> list[tuple[str, int]]:
    """(fname, class from 1) of each annotation."""
    if rows.dtype.names is None or not {"class", "fname"} <= set(rows.dtype.names):
        raise InputError(
            f"The annotations of {file!r} in {str(home.root)!r} have no class and fname.",
            do=f"Take {TEST} and not cars_test_annos.mat, which has no labels; it comes with {home.origin}.",
        )
    found = [(str(name), int(label)) for name, label in zip(rows["fname"].reshape(-1), rows["class"].reshape(-1))]
    wrong = next((pair for pair in found if not 1 <= pair[1] <= classes), None)
    if wrong is not None:
        raise InputError(f"{wrong[0]!r} of {file!r} has the class {wrong[1]}; there are {classes}.")
    return found


def _mat(home: Home, file: str, variable: str, holds: str) -> Any:
    """One variable of a MATLAB 5 file, found in the folder or in devkit/; nothing in it is run."""
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    path = next((path for path in (home.root / file, home.root / "devkit" / file) if path.is_file()), None)
    if path is None:
        raise home.missing(file if file == TEST else f"devkit/{file}", holds)
    try:
        return loadmat(path, squeeze_me=True, variable_names=[variable])[variable]
    except (MatReadError, ValueError, TypeError, KeyError, IndexError, NotImplementedError, OSError, zlib.error) as exc:
        raise InputError(
            f"{str(path)!r} cannot be read: {exc!r}; a MATLAB 5 file with {variable!r} was expected.",
            do=f"Take the file again from {home.origin}.",
        ) from exc
