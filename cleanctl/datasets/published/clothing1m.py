"""Clothing1M: noisy_label_kv.txt and clean_label_kv.txt (`path label`), *_key_list.txt (the splits), images/0 … 9.

    train        noisy_train_key_list.txt with its noisy labels; the truth of those that also have a clean one
    val, test    clean_val_key_list.txt, clean_test_key_list.txt with their clean labels
    clean_train  clean_train_key_list.txt: the noisy label where there is one, and the clean one as the truth

`--variant balanced:32000` draws a subset of train with --seed, as published code draws one (docs/method.md D.4): keys
are shuffled, and each is taken while its class has less than a 14th of the number. It is drawn here alone, and the
store keeps its keys, so that every later verb sees the same images. Keys keep their `images/` where that folder is,
and lose it where 0 … 9 lie beside the lists. The lists may also lie in annotations/.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ClassVar

from cleanctl.datasets.adapter import DatasetRequest
from cleanctl.datasets.published.lists import Home, Pairs, PublishedDataset, class_names, listed_dataset
from cleanctl.errors import InputError, UsageError
from cleanctl.records import Dataset

CLASSES = (
    "T-Shirt", "Shirt", "Knitwear", "Chiffon", "Sweater", "Hoodie", "Windbreaker", "Jacket", "Downcoat", "Suit",
    "Shawl", "Dress", "Vest", "Underwear",
)  # fmt: skip
NOISY, CLEAN = "noisy_label_kv.txt", "clean_label_kv.txt"
LISTS = {
    "train": "noisy_train_key_list.txt",
    "val": "clean_val_key_list.txt",
    "test": "clean_test_key_list.txt",
    "clean_train": "clean_train_key_list.txt",
}
IMAGES = "images/"


class Clothing1M(PublishedDataset):
    name = "clothing1m"
    origin = "the annotations of Clothing1M, which its authors send on request"
    takes = ("--classes", "--variant")
    counts: ClassVar = {"train": 1_000_000, "clean_train": 47_570, "val": 14_313, "test": 10_526}

    def is_at(self, root: Path) -> bool:
        return (root / _lists(root) / NOISY).is_file()

    def shipped(self, request: DatasetRequest) -> Mapping[str, int]:
        drawn = _balanced_size(request.variant) is not None
        return {split: count for split, count in self.counts.items() if not (drawn and split == "train")}

    def read(self, home: Home, request: DatasetRequest) -> Dataset:
        size = _balanced_size(request.variant)
        below = _lists(home.root)
        noisy = dict(home.pairs(f"{below}{NOISY}", "the noisy label of each image"))
        clean = dict(home.pairs(f"{below}{CLEAN}", "the clean label of each image that has one"))
        labels = {"train": noisy, "val": clean, "test": clean, "clean_train": clean | noisy}
        pairs: dict[str, Pairs] = {}
        for split, file in LISTS.items():
            if split == "clean_train" and not (home.root / below / file).is_file():
                continue  # many keep the lists that training reads alone
            keys = [line for _, line in home.lines(f"{below}{file}", f"the images of split {split}")]
            _refuse_unlabelled(keys, labels[split], file, home)
            pairs[split] = [(key, labels[split][key]) for key in keys]
        notes = []
        if size is not None:
            pairs["train"] = _balanced(pairs["train"], size, request.seed)
            notes.append(_subset_note(pairs["train"], size, request.seed))
        place = _place_of(home, pairs["train"])
        truth = {
            split: {place(key): clean[key] for key, _ in pairs[split] if key in clean}
            for split in ("train", "clean_train")
            if split in pairs
        }
        notes += [
            f"{len(known):,} images of {split!r} have a clean label, which is their truth."
            for split, known in truth.items()
            if known
        ]
        return listed_dataset(
            request,
            self.name,
            class_names(request, CLASSES),
            {split: [(place(key), label) for key, label in found] for split, found in pairs.items()},
            ordered=pairs,
            variant="" if size is None else f"balanced:{size} with seed {request.seed}",
            truth={split: known for split, known in truth.items() if known},
            notes=tuple(notes),
        )


def _lists(root: Path) -> str:
    """Where the lists lie below the folder: "" or "annotations/"."""
    return "annotations/" if not (root / NOISY).is_file() and (root / "annotations" / NOISY).is_file() else ""


def _refuse_unlabelled(keys: list[str], labels: dict[str, int], file: str, home: Home) -> None:
    unlabelled = [key for key in keys if key not in labels]
    if unlabelled:
        raise InputError(
            f"{len(unlabelled)} keys of {file} have no label, e.g. {unlabelled[0]!r}.",
            do=f"Bring the label file that belongs to the list; both come with {home.origin}.",
        )


def _place_of(home: Home, pairs: Pairs) -> Callable[[str], str]:
    """From an image's key in the lists to its path below the folder."""
    if not (home.root / IMAGES).is_dir() and pairs and (home.root / pairs[0][0].removeprefix(IMAGES)).parent.is_dir():
        return lambda key: key.removeprefix(IMAGES)
    home.require_folder(IMAGES[:-1], "the images, unpacked from 0.tar … 9.tar")
    return lambda key: key


# ---- the balanced subset


def _balanced_size(variant: str | None) -> int | None:
    """The number behind `balanced:`; None for the whole set. Raises UsageError."""
    if variant is None or variant == "all":
        return None
    match = re.fullmatch(r"balanced:([1-9]\d{0,6})", variant)
    if match is None:
        raise UsageError(
            f"--variant is {variant!r}, which clothing1m does not have.",
            do="Name all, or balanced:N for N images drawn with --seed, e.g. balanced:32000 (1,000 batches of 32).",
        )
    return int(match[1])


def _balanced(pairs: Pairs, size: int, seed: int) -> Pairs:
    """At most `size` of them, no class with more than a 14th, rounded up; in the order they were drawn in."""
    draw = random.Random(seed)
    shuffled = list(pairs)
    draw.shuffle(shuffled)
    taken: list[tuple[str, int]] = []
    count = [0] * len(CLASSES)
    for key, label in shuffled:
        if len(taken) < size and 0 <= label < len(CLASSES) and count[label] < size / len(CLASSES):
            taken.append((key, label))
            count[label] += 1
    draw.shuffle(taken)
    return taken


def _subset_note(taken: Pairs, size: int, seed: int) -> str:
    digest = hashlib.sha256("\n".join(key for key, _ in taken).encode()).hexdigest()[:16]
    return (
        f"The balanced subset balanced:{size} with seed {seed} holds {len(taken):,} training images "
        f"(hash of their keys as drawn {digest}); the store keeps their keys."
    )
