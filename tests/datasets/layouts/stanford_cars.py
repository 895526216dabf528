"""Stanford-Cars: class folders, and the devkit's MATLAB files, whose classes are not sorted by name."""

from pathlib import Path

import numpy as np
from published_copy import Copy, write_image
from scipy.io import savemat

NAMES = [
    "AM General Hummer SUV 2000",
    "Nissan Leaf Hatchback 2012",
    "Nissan 240SX Coupe 1998",
    "Ram C/V Cargo Van Minivan 2012",
]
SORTED = sorted(NAMES)
TRAIN = [(f"{number + 1:05d}.jpg", NAMES[label]) for number, label in enumerate((1, 0, 3, 2, 2, 1, 0, 3, 2))]
TEST = [(f"{number + 1:05d}.jpg", NAMES[label]) for number, label in enumerate((3, 2, 1, 0))]
SPLITS = {"train": TRAIN, "test": TEST}


def build(folder: Path) -> None:
    for split, rows in SPLITS.items():
        for file, name in rows:
            write_image(folder / split / name.replace("/", "-") / file, NAMES.index(name))


def build_devkit(folder: Path) -> None:
    (folder / "devkit").mkdir(parents=True)
    savemat(folder / "devkit/cars_meta.mat", {"class_names": np.array([NAMES], dtype=object)})
    for file, rows in (("devkit/cars_train_annos.mat", TRAIN), ("cars_test_annos_withlabels.mat", TEST)):
        kinds = [(name, object) for name in ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2", "class", "fname")]
        values = [(39.0, 116.0, 569.0, 375.0, float(NAMES.index(name) + 1), image) for image, name in rows]
        savemat(folder / file, {"annotations": np.array([values], dtype=kinds)})
    for split, rows in SPLITS.items():
        for file, name in rows:
            write_image(folder / f"cars_{split}" / file, NAMES.index(name))


COMMON = {"dataset": "stanford-cars", "num_classes": 4}
COPIES = [
    Copy(
        **COMMON,
        build=build,
        rows={
            split: [(f"{split}/{name.replace('/', '-')}/{file}", SORTED.index(name)) for file, name in rows]
            for split, rows in SPLITS.items()
        },
        names=dict(enumerate(name.replace("/", "-") for name in SORTED)),
    ),
    Copy(
        **COMMON,
        build=build_devkit,
        rows={
            split: [(f"cars_{split}/{file}", SORTED.index(name)) for file, name in rows]
            for split, rows in SPLITS.items()
        },
        names=dict(enumerate(SORTED)),
        ordered=("train", "test"),
        annotations=("devkit/cars_meta.mat", "devkit/cars_train_annos.mat", "cars_test_annos_withlabels.mat"),
    ),
]
