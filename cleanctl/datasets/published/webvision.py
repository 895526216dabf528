"""WebVision 1.0, all 1,000 classes or the first 50 (mini-WebVision), and ILSVRC2012's validation images beside it.

    info/train_filelist_google.txt   `google/q0001/….jpg label` a line; mini-WebVision has the labels below 50
    info/train_filelist_flickr.txt   the same for flickr/; with `--dataset webvision` alone, unless --variant google
    info/val_filelist.txt            `val000001.jpg label`, in val_images_256/
    imagenet_val/<wnid>/*            ILSVRC2012's validation images: the split `ilsvrc`; or
    imagenet/val/<number>/*          the same, in folders named by the class's number

Classes are ILSVRC2012's, ordered by synset. Names are CLIP's for the thousand, and for mini-WebVision those of the
published prompts, edited so that no two animals and no thing share one (docs/method.md D.4).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from cleanctl.datasets.adapter import DatasetRequest
from cleanctl.datasets.published.lists import Home, Pairs, PublishedDataset, choose, class_names, listed_dataset
from cleanctl.datasets.published.synsets import first_word, ilsvrc_synsets
from cleanctl.errors import InputError
from cleanctl.records import Dataset

GOOGLE, FLICKR = "info/train_filelist_google.txt", "info/train_filelist_flickr.txt"
VAL, VAL_FOLDER = "info/val_filelist.txt", "val_images_256"
WITHOUT = "--variant google leaves them out"
ILSVRC = "ilsvrc"
BY_SYNSET, BY_NUMBER = "imagenet_val", "imagenet/val"
MINI = 50
MINI_CLASSES = (
    "tench", "goldfish", "great white shark", "tiger shark", "hammerhead", "electric ray", "stingray", "cock animal",
    "hen", "ostrich", "brambling", "goldfinch", "house finch", "junco", "indigo bunting", "robin bird", "bulbul",
    "jay bird", "magpie", "chickadee", "water ouzel", "kite bird", "bald eagle", "vulture", "great grey owl",
    "European fire salamander", "common newt", "eft newt", "spotted salamander", "axolotl", "bullfrog", "tree frog",
    "tailed frog", "loggerhead", "leatherback turtle", "mud turtle", "terrapin", "box turtle", "banded gecko",
    "common iguana", "American chameleon", "whiptail", "agama", "frilled lizard", "alligator lizard", "Gila monster",
    "green lizard", "African chameleon", "Komodo dragon", "African crocodile",
)  # fmt: skip


class WebVision(PublishedDataset):
    name = "webvision"
    origin = "WebVision 1.0 (its info.tar has the lists, and val_images_256 the validation images)"
    takes = ("--classes", "--variant")
    counts: ClassVar = {"val": 50_000, "ilsvrc": 50_000}

    def is_at(self, root: Path) -> bool:
        """Where flickr/, or a folder of a class past the fiftieth, is there."""
        return (root / GOOGLE).is_file() and ((root / "flickr").is_dir() or _holds_later_classes(self, root))

    def read(self, home: Home, request: DatasetRequest) -> Dataset:
        sources = {"all": "Google's images and Flickr's", "google": "Google's alone"}
        variant = "all" if request.variant is None else choose(request, self.name, sources)
        train = home.pairs(GOOGLE, "Google's training images and their labels")
        if variant == "all":
            train += home.pairs(FLICKR, f"Flickr's training images and their labels; {WITHOUT}")
            home.require_folder("flickr", f"Flickr's training images; {WITHOUT}")
        dataset = _dataset(home, request, train, class_names(request, _names()))
        return dataset if variant == "all" else replace(dataset, variant=variant)


class MiniWebVision(PublishedDataset):
    name = "mini-webvision"
    origin = WebVision.origin
    counts: ClassVar = {"val": 50 * MINI, "ilsvrc": 50 * MINI}

    def is_at(self, root: Path) -> bool:
        return (root / GOOGLE).is_file() and not (root / "flickr").is_dir()

    def read(self, home: Home, request: DatasetRequest) -> Dataset:
        train = home.pairs(GOOGLE, "Google's training images and their labels")
        if request.classes is not None and len(request.classes) > MINI:  # a file of all thousand will do
            return _dataset(home, request, train, request.classes[:MINI])
        return _dataset(home, request, train, class_names(request, MINI_CLASSES))


def _dataset(home: Home, request: DatasetRequest, train: Pairs, classes: tuple[str, ...]) -> Dataset:
    """Images of the first classes alone, if there are no more names."""
    home.require_folder(train[0][0].partition("/")[0], "the training images")
    home.require_folder(VAL_FOLDER, "the validation images")
    val = [(f"{VAL_FOLDER}/{key}", label) for key, label in home.pairs(VAL, "the validation images and their labels")]
    pairs = {"train": train, "val": val}
    if len(classes) == MINI:
        pairs = {split: [pair for pair in found if pair[1] < MINI] for split, found in pairs.items()}
    ilsvrc = _ilsvrc(home, len(classes))
    notes = () if ilsvrc else (f"There is no {BY_SYNSET}/ or {BY_NUMBER}/, hence no split {ILSVRC!r}.",)
    ordered = tuple(pairs)
    return listed_dataset(request, home.name, classes, {**pairs, ILSVRC: ilsvrc}, ordered=ordered, notes=notes)


def _ilsvrc(home: Home, classes: int) -> list[tuple[str, int]]:
    """ILSVRC2012's validation images of the first classes, sorted; none where neither folder is."""
    if (home.root / BY_SYNSET).is_dir():
        folders = [f"{BY_SYNSET}/{synset}" for synset in ilsvrc_synsets()[:classes]]
    elif (home.root / BY_NUMBER).is_dir():
        folders = [f"{BY_NUMBER}/{number}" for number in range(classes)]
    else:
        return []
    found = [home.images(folder) for folder in folders]
    empty = [folder for folder, keys in zip(folders, found) if not keys]
    if empty:
        raise InputError(
            f"{len(empty)} of the {classes} class folders of ILSVRC2012's validation images hold none, e.g. "
            f"{empty[0]!r} in {str(home.root)!r}.",
            so=f"Accuracy on the split {ILSVRC!r} would be that of some classes alone.",
            do="Sort all 50,000 images into 1,000 folders, or move the folder away to do without the split.",
        )
    return [(key, number) for number, keys in enumerate(found) for key in keys]


def _holds_later_classes(layout: PublishedDataset, root: Path) -> bool:
    train = Home(layout.name, layout.origin, root).pairs(GOOGLE, "Google's training images and their labels")
    folders = {key.rpartition("/")[0] for key, label in train if label >= MINI}
    return any((root / folder).is_dir() for folder in folders)


def _names() -> tuple[str, ...]:
    """CLIP's names of ILSVRC2012's classes; where two classes share one, the first word of each synset."""
    from open_clip import IMAGENET_CLASSNAMES

    count = Counter(IMAGENET_CLASSNAMES)
    pairs = zip(IMAGENET_CLASSNAMES, ilsvrc_synsets())
    return tuple(name if count[name] == 1 else first_word(synset) for name, synset in pairs)
