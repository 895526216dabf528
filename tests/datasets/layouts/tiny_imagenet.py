"""Tiny-ImageNet: as it is unpacked, and with the validation images sorted into test/ and the lists gone."""

import shutil
from pathlib import Path

from published_copy import Copy, write_image, write_text

WORDS = {
    "n02124075": "Egyptian cat",
    "n03126707": "crane",
    "n02012849": "crane",
    "n04067472": "reel",
    "n02123045": "tabby, tabby cat",
}
WNIDS = ["n03126707", "n02124075", "n02123045", "n04067472"]  # not sorted, as distributed
SYNSETS = sorted(WNIDS)
TRAIN = [
    (f"train/{synset}/images/{synset}_{number}.JPEG", label)
    for label, synset in enumerate(SYNSETS)
    for number in (0, 1, 10, 2)
]
VAL = [(f"val_{number}.JPEG", SYNSETS[label]) for number, label in enumerate((2, 0, 1, 3, 0, 1))]


def build(folder: Path) -> None:
    write_text(folder / "wnids.txt", "".join(f"{synset}\n" for synset in WNIDS))
    write_text(folder / "words.txt", "".join(f"{synset}\t{words}\n" for synset, words in sorted(WORDS.items())))
    write_text(
        folder / "val/val_annotations.txt", "".join(f"{file}\t{synset}\t0\t32\t44\t62\n" for file, synset in VAL)
    )
    for key, label in TRAIN:
        write_image(folder / key, label, size=64)
    for synset in SYNSETS:
        write_text(folder / "train" / synset / f"{synset}_boxes.txt", f"{synset}_0.JPEG\t0\t10\t63\t58\n")
    for file, synset in VAL:
        write_image(folder / "val/images" / file, SYNSETS.index(synset), size=64)
    write_image(folder / "test/images/test_0.JPEG", 0, size=64)  # nobody knows its class


def build_sorted(folder: Path) -> None:
    build(folder)
    shutil.rmtree(folder / "test")
    for file, synset in VAL:
        place = folder / "test" / synset / "images" / file
        place.parent.mkdir(parents=True, exist_ok=True)
        (folder / "val/images" / file).rename(place)
    shutil.rmtree(folder / "val")
    (folder / "wnids.txt").unlink()
    (folder / "words.txt").unlink()


COMMON = {"dataset": "tiny-imagenet", "num_classes": 4}
NAMES = {0: "tabby", 1: "Egyptian cat", 3: "reel"}
COPIES = [
    Copy(
        **COMMON,
        build=build,
        rows={"train": TRAIN, "val": [(f"val/images/{file}", SYNSETS.index(synset)) for file, synset in VAL]},
        names={**NAMES, 2: "crane"},
        ordered=("val",),
        annotations=("val/val_annotations.txt",),
    ),
    Copy(
        **COMMON,
        build=build_sorted,
        rows={
            "train": TRAIN,
            "test": [(f"test/{synset}/images/{file}", SYNSETS.index(synset)) for file, synset in VAL],
        },
        names={**NAMES, 2: "crane"},
    ),
]
