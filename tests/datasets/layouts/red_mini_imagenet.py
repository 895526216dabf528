"""Red mini-ImageNet: as it is unpacked (annotations above mini-imagenet/, validation by label), and as the published
code wants it (all in one folder, validation flat). The split files end without a line end, as the original ones do.
"""

from __future__ import annotations

import json
from pathlib import Path

from published_copy import Copy, Row, write_image, write_text

from cleanctl.records import KNOWN_WRONG

# file, label, truth: mini-ImageNet's own by synset, the web's by the annotations
TRAIN = [
    ("n0170432300000001.jpg", 0, 0),
    ("5922767e5677aef4.jpg", 0, KNOWN_WRONG),
    ("n0451500300000017.jpg", 1, 1),
    ("0a1b2c3d4e5f6071.jpg", 1, 1),
    ("n1313361300000002.jpg", 65, 65),
    ("n0320774300000350.jpg", 99, 99),
    ("ffeeddccbbaa0099.jpg", 99, KNOWN_WRONG),
    ("00000000000000aa.jpg", 65, -1),  # not in the annotations
]
TRAIN += [(f"n0170432300000{100 + number}.jpg", 0, 0) for number in range(6)]
TRAIN += [(f"n0451500300000{100 + number}.jpg", 1, 1) for number in range(6)]
OTHER = [(file, label, truth) for file, label, truth in TRAIN if truth >= 0]  # another level of noise
VAL = [
    ("ILSVRC2012_val_00000003.jpg", 1),
    ("ILSVRC2012_val_00000001.jpg", 0),
    ("ILSVRC2012_val_00000020.jpg", 99),
    ("ILSVRC2012_val_00000011.jpg", 65),
]


def write_common(folder: Path, above: Path) -> None:
    web = [
        (file, label, truth) for file, label, truth in TRAIN if not file.startswith(("n0", "n1", "00000000000000aa"))
    ]
    data = [
        [
            {
                "image/uri": f"https://images.example/{file}",
                "image/id": file.removesuffix(".jpg"),
                "image/class/label": label,
                "image/class/label/is_clean": int(truth == label),
            }
        ]
        for file, label, truth in web
    ]
    text = json.dumps({"name": "image-search noisy labels", "version": "1.0", "data": data}, indent=4)
    write_text(above / "mini-imagenet-annotations.json", text)
    for level, rows in (("0.4", TRAIN), ("0.2", OTHER)):
        write_text(folder / f"split/red_noise_nl_{level}", "\n".join(f"{file} {label}" for file, label, _ in rows))
    write_text(folder / "split/blue_noise_nl_0.4", "n0170432300000001.jpg 1")
    write_text(folder / "split/clean_validation", "".join(f"{file} {label}\n" for file, label in VAL))
    write_text(folder / "class_name.txt", "triceratops\n")
    for file, label, _ in TRAIN:
        write_image(folder / "all_images" / file, label, size=84)


def build(folder: Path) -> None:
    write_common(folder, folder)
    for file, label in VAL:
        write_image(folder / "all_validation" / file, label)


def build_as_unpacked(folder: Path) -> None:
    write_common(folder / "mini-imagenet", folder)
    for file, label in VAL:
        write_image(folder / "mini-imagenet/validation" / str(label) / file, label)


def rows(below: str, train: list, validation: str) -> dict[str, list[Row]]:
    return {
        "train": [(f"{below}all_images/{file}", label, truth) for file, label, truth in train],
        "val": [(below + validation.format(file=file, label=label), label) for file, label in VAL],
    }


NAMES = {0: "triceratops", 1: "upright piano", 65: "ear", 84: "saluki", 99: "dishrag"}
COMMON = {"dataset": "red-mini-imagenet", "num_classes": 100, "names": NAMES, "ordered": ("train", "val")}
COPIES = [
    Copy(
        **COMMON,
        build=build,
        rows=rows("", TRAIN, "all_validation/{file}"),
        variant="0.4",
        annotations=("mini-imagenet-annotations.json", "split/clean_validation"),
    ),
    Copy(
        **COMMON,
        build=build_as_unpacked,
        rows=rows("mini-imagenet/", OTHER, "validation/{label}/{file}"),
        variant="0.2",
        annotations=("mini-imagenet-annotations.json", "mini-imagenet/split/clean_validation"),
    ),
]
