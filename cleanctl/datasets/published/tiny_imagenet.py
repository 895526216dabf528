"""Tiny-ImageNet: 200 synsets at 64 px, as distributed or with its validation images sorted into folders.

    wnids.txt, words.txt               the synsets, and the names of every synset of WordNet
    train/<synset>/images/*            the split `train`
    val/val_annotations.txt            `val_0.JPEG`, its synset and a box, by tabs; images in val/images/: `val`
    val|test/<synset>/images/*         the sorted layout: the split of that name; published code has it in test/

Classes are the synsets in sorted order, whatever wnids.txt has: so does code that lists folders, once it sorts them
(docs/method.md F). A class is called by the first word of its synset that no other class begins with.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from cleanctl.datasets.adapter import DatasetRequest
from cleanctl.datasets.published.lists import Home, PublishedDataset, class_names, listed_dataset
from cleanctl.datasets.published.synsets import words
from cleanctl.errors import InputError
from cleanctl.records import Dataset

WNIDS, WORDS, ANNOTATIONS = "wnids.txt", "words.txt", "val/val_annotations.txt"
_SYNSET = re.compile(r"n\d{8}")


class TinyImageNet(PublishedDataset):
    name = "tiny-imagenet"
    origin = "tiny-imagenet-200.zip"
    counts: ClassVar = {"train": 100_000, "val": 10_000, "test": 10_000}

    def is_at(self, root: Path) -> bool:
        if (root / WNIDS).is_file() and (root / "train").is_dir():
            return True
        folders = _synset_folders(root / "train")
        return bool(folders) and all((folder / "images").is_dir() for folder in folders)

    def read(self, home: Home, request: DatasetRequest) -> Dataset:
        home.require_folder("train", "the training images, a folder a synset")
        synsets = _synsets(home)
        number = {synset: label for label, synset in enumerate(synsets)}
        pairs = {"train": _sorted_images(home, "train", number)}
        ordered = []
        for split in ("val", "test"):
            if _synset_folders(home.root / split):
                pairs[split] = _sorted_images(home, split, number)
        if "val" not in pairs and ("test" not in pairs or (home.root / ANNOTATIONS).is_file()):
            pairs["val"] = _annotated_images(home, number)
            ordered = ["val"]
        names = _names(home, synsets)
        return listed_dataset(request, self.name, class_names(request, names), pairs, ordered=ordered)


def _synset_folders(folder: Path) -> list[Path]:
    """The folders in one if all of them are named like synsets, else none; sorted."""
    if not folder.is_dir():
        return []
    found = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    return found if all(_SYNSET.fullmatch(path.name) for path in found) else []


def _synsets(home: Home) -> list[str]:
    """Sorted: those of wnids.txt, or where the sorted layout has lost it, the folders of train/."""
    if not (home.root / WNIDS).is_file() and (folders := _synset_folders(home.root / "train")):
        return [folder.name for folder in folders]
    found = home.lines(WNIDS, "the synsets that are the classes")
    for number, line in found:
        if not _SYNSET.fullmatch(line):
            raise home.odd(WNIDS, number, line, "a synset such as n02124075")
    return sorted({line for _, line in found})


def _sorted_images(home: Home, split: str, number: Mapping[str, int]) -> list[tuple[str, int]]:
    pairs = []
    for folder in _synset_folders(home.root / split):
        if folder.name not in number:
            raise InputError(
                f"The folder {split}/{folder.name} of {str(home.root)!r} is none of the {len(number)} synsets.",
                do=f"Take {WNIDS} and the folders from one copy of {home.origin}.",
            )
        below = f"{split}/{folder.name}"
        found = home.images(f"{below}/images") or home.images(below)
        pairs += [(key, number[folder.name]) for key in found]
    return pairs


def _annotated_images(home: Home, number: Mapping[str, int]) -> list[tuple[str, int]]:
    pairs = []
    for at, line in home.lines(ANNOTATIONS, "the synset of each validation image"):
        file, _, rest = line.partition("\t")
        synset = rest.partition("\t")[0]
        if synset not in number:
            raise home.odd(ANNOTATIONS, at, line, f"a file, a tab and one of the {len(number)} synsets")
        pairs.append((f"val/images/{file}", number[synset]))
    home.require_folder("val/images", "the validation images")
    return pairs


def _names(home: Home, synsets: Sequence[str]) -> tuple[str, ...]:
    """By words.txt, or without it by WordNet's own words."""
    if (home.root / WORDS).is_file():
        lines = home.lines(WORDS, "the words of each synset")
        known = dict(line.split("\t", 1) for _, line in lines if "\t" in line)
        unnamed = [synset for synset in synsets if synset not in known]
        if unnamed:
            raise InputError(
                f"{str(home.root / WORDS)!r} has no words for {len(unnamed)} of {len(synsets)} synsets, e.g. "
                f"{unnamed[0]}.",
                do=f"Take the file again from {home.origin}, or name the classes with --classes FILE.",
            )
        all_words = [tuple(word.strip() for word in known[synset].split(",")) for synset in synsets]
    else:
        all_words = [words(synset) for synset in synsets]
    return distinct(synsets, all_words)


def distinct(synsets: Sequence[str], all_words: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """The first word of each; where two begin alike the first that no other has, else the first with the synset."""
    count = Counter(word for found in all_words for word in dict.fromkeys(found))
    firsts = Counter(found[0] for found in all_words)
    names = []
    for synset, found in zip(synsets, all_words):
        if firsts[found[0]] == 1:
            names.append(found[0])
        else:
            alone = next((word for word in found if count[word] == 1), None)
            names.append(alone or f"{found[0]} ({synset})")
    return tuple(names)
