"""Datasets whose files follow a published layout of their own, by the name given to `--dataset`.

In: the dataset's folder as its authors ship it. Out: a Dataset. One reader each, in `NAMED`; a new dataset is one
function and one line there.

    animal10n      training/ and testing/ with files `<label>_<id>.jpg`
    clothing1m     noisy_label_kv.txt, clean_label_kv.txt, *_key_list.txt, category_names_eng.txt
    mini-webvision info/train_filelist_google.txt, info/val_filelist.txt (the first 50 classes)
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from itertools import pairwise
from pathlib import Path

import numpy as np

from cleanctl.errors import InputError, UsageError
from cleanctl.files.listing import find_images
from cleanctl.files.local import LocalStorage
from cleanctl.records import Dataset, SplitManifest

# Order as in the files' labels; the dataset's page exchanges 4 and 5, which only prompts would notice.
ANIMAL10N_CLASSES = (
    "cat", "lynx", "wolf", "coyote", "jaguar", "cheetah", "chimpanzee", "orangutan", "hamster", "guinea pig"
)  # fmt: skip
CLOTHING1M_CLASSES = (
    "T-Shirt", "Shirt", "Knitwear", "Chiffon", "Sweater", "Hoodie", "Windbreaker", "Jacket", "Downcoat", "Suit",
    "Shawl", "Dress", "Vest", "Underwear",
)  # fmt: skip
MINI_WEBVISION_CLASSES = 50


def open_named(name: str, root: Path, classes: tuple[str, ...] | None) -> Dataset:
    """Raises UsageError for a name that is not in the registry, InputError for files that are not as published."""
    if name not in NAMED:
        raise UsageError(
            f"--dataset {name!r} is not a known layout.",
            do=f"Use one of: {', '.join(sorted(NAMED))}; or leave it out and give --labels FILE.",
        )
    return NAMED[name](root, classes)


def _animal10n(root: Path, classes: tuple[str, ...] | None) -> Dataset:
    pairs: dict[str, list[tuple[str, int]]] = {}
    left_out = 0
    for key in find_images(root).keys:
        folder, _, file = key.rpartition("/")
        match = re.match(r"(\d+)_", file)
        split = {"training": "train", "testing": "test"}.get(folder.rpartition("/")[2])
        if match is None or split is None:
            left_out += 1
        else:
            pairs.setdefault(split, []).append((key, int(match[1])))
    return _dataset("animal10n", root, classes or ANIMAL10N_CLASSES, pairs, left_out=left_out)


def _clothing1m(root: Path, classes: tuple[str, ...] | None) -> Dataset:
    noisy = dict(_pairs(root / "noisy_label_kv.txt"))
    clean = dict(_pairs(root / "clean_label_kv.txt"))
    lists = {
        "train": ("noisy_train_key_list.txt", noisy),
        "val": ("clean_val_key_list.txt", clean),
        "test": ("clean_test_key_list.txt", clean),
    }
    pairs = {}
    for split, (file, labels) in lists.items():
        keys = [line.strip() for line in _lines(root / file) if line.strip()]
        unlabelled = [key for key in keys if key not in labels]
        if unlabelled:
            raise InputError(
                f"{len(unlabelled)} keys of {file} have no label, e.g. {unlabelled[0]!r}.",
                do="Bring the label file that belongs to the list.",
            )
        pairs[split] = [(key, labels[key]) for key in keys]
    truth = {key: clean[key] for key, _ in pairs["train"] if key in clean}
    notes = () if not truth else (f"{len(truth):,} training images also have a clean label, which is not used.",)
    return _dataset("clothing1m", root, classes or CLOTHING1M_CLASSES, pairs, notes=notes)


def _mini_webvision(root: Path, classes: tuple[str, ...] | None) -> Dataset:
    if classes is None:
        raise InputError(
            "The file lists of mini-WebVision name no classes.",
            so="Prompts need the classes' names.",
            do="Give --classes FILE with the first 50 names, one a line, in label order.",
        )
    train = [pair for pair in _pairs(root / "info/train_filelist_google.txt") if pair[1] < MINI_WEBVISION_CLASSES]
    val = [
        (f"val_images_256/{key}", label)
        for key, label in _pairs(root / "info/val_filelist.txt")
        if label < MINI_WEBVISION_CLASSES
    ]
    return _dataset("mini-webvision", root, classes[:MINI_WEBVISION_CLASSES], {"train": train, "val": val})


NAMED: dict[str, Callable[[Path, tuple[str, ...] | None], Dataset]] = {
    "animal10n": _animal10n,
    "clothing1m": _clothing1m,
    "mini-webvision": _mini_webvision,
}


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as exc:
        raise InputError(
            f"The file {str(file)!r} of this layout cannot be read: {exc}.",
            do="Give the dataset's folder as its authors ship it, or use --labels.",
        ) from exc


def _pairs(file: Path) -> Iterable[tuple[str, int]]:
    """Lines `path label`."""
    for number, line in enumerate(_lines(file), start=1):
        key, _, label = line.strip().rpartition(" ")
        if not line.strip():
            continue
        if not key or not label.isdecimal():
            raise InputError(f"Line {number} of {str(file)!r} is {line!r}, not a path and a label.")
        yield key, int(label)


def _dataset(
    layout: str,
    root: Path,
    classes: tuple[str, ...],
    pairs: dict[str, list[tuple[str, int]]],
    *,
    left_out: int = 0,
    notes: tuple[str, ...] = (),
) -> Dataset:
    splits = []
    for split, found in sorted(pairs.items()):
        found = sorted(found)
        keys = [key for key, _ in found]
        wrong = next((pair for pair in found if not 0 <= pair[1] < len(classes)), None)
        if wrong is not None:
            raise InputError(
                f"{wrong[0]!r} has the unknown class {wrong[1]}; {layout} has {len(classes)} classes.",
                do="Check the files, or name every class in the file given to --classes.",
            )
        twice = next((key for key, after in pairwise(keys) if key == after), None)
        if twice is not None:
            raise InputError(f"{twice!r} is listed twice in split {split!r}.", do="Keep one line for each image.")
        label_N = np.array([label for _, label in found], dtype=np.int32)
        if keys:
            splits.append(SplitManifest(split=split, keys=keys, label_N=label_N))
    if not splits:
        raise InputError(f"No images of the layout {layout} were found in {str(root)!r}.")
    return Dataset(
        files=LocalStorage.of(root),
        layout=layout,
        classes=classes,
        splits=tuple(splits),
        left_out=left_out,
        notes=notes,
    )
