"""CIFAR-10 and CIFAR-100 as their page ships them for Python, small."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import python2_pickle
from published_copy import Copy

NAMES10 = [
    b"airplane", b"automobile", b"bird", b"cat", b"deer", b"dog", b"frog", b"horse", b"ship", b"truck"
]  # fmt: skip
NAMES100 = (
    b"apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can "
    b"castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin "
    b"elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster "
    b"man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck "
    b"pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk "
    b"skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone television tiger "
    b"tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm"
).split()
COARSE_NAMES = [
    b"aquatic_mammals", b"fish", b"flowers", b"food_containers", b"fruit_and_vegetables",
    b"household_electrical_devices", b"household_furniture", b"insects", b"large_carnivores",
    b"large_man-made_outdoor_things", b"large_natural_outdoor_scenes", b"large_omnivores_and_herbivores",
    b"medium_mammals", b"non-insect_invertebrates", b"people", b"reptiles", b"small_mammals", b"trees", b"vehicles_1",
    b"vehicles_2",
]  # fmt: skip


def pixels(label_N: np.ndarray, seed: int) -> np.ndarray:
    """uint8 (N, 3072), planes of red, green and blue: noise around a colour that the class gives."""
    rng = np.random.default_rng(seed)
    colour_N3 = np.stack([label_N * 23 % 150, label_N * 41 % 150, label_N * 67 % 150], axis=1)
    plane_N3P = colour_N3[:, :, None] + rng.integers(0, 100, (len(label_N), 3, 1024))
    return plane_N3P.astype(np.uint8).reshape(len(label_N), 3072)


def labels(count: int, classes: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, classes, count)


def build_cifar10(folder: Path, *, each: int = 8, train: np.ndarray | None = None) -> Path:
    """`cifar-10-batches-py/`. each: rows of a batch; or `train`: the labels of all five. Gives its path."""
    inner = folder / "cifar-10-batches-py"
    inner.mkdir(parents=True, exist_ok=True)
    meta = {b"num_cases_per_batch": 10000, b"label_names": NAMES10, b"num_vis": 3072}
    (inner / "batches.meta").write_bytes(python2_pickle.dumps(meta))
    parts = np.array_split(labels(5 * each, 10, 0) if train is None else train, 5)
    for number, label_N in enumerate([*parts, labels(each, 10, 1)], start=1):
        test = number == 6
        batch = {
            b"batch_label": b"testing batch 1 of 1" if test else b"training batch %d of 5" % number,
            b"labels": label_N.tolist(),
            b"data": pixels(label_N, number),
            b"filenames": [b"%s_s_%06d.png" % (NAMES10[label], row) for row, label in enumerate(label_N)],
        }
        name = "test_batch" if test else f"data_batch_{number}"
        (inner / name).write_bytes(python2_pickle.dumps(batch))
    return inner


def build_cifar100(folder: Path, *, rows: int = 40, train: np.ndarray | None = None) -> Path:
    """`cifar-100-python/`. train: the labels of the training split, else `rows` random ones. Gives its path."""
    inner = folder / "cifar-100-python"
    inner.mkdir(parents=True, exist_ok=True)
    meta = {b"fine_label_names": NAMES100, b"coarse_label_names": COARSE_NAMES}
    (inner / "meta").write_bytes(python2_pickle.dumps(meta))
    for name, count, seed in (("train", rows, 2), ("test", 10, 3)):
        label_N = labels(count, 100, seed) if train is None or name == "test" else train
        split = {
            b"filenames": [b"%s_s_%06d.png" % (NAMES100[label], row) for row, label in enumerate(label_N)],
            b"batch_label": b"training batch 1 of 1" if name == "train" else b"testing batch 1 of 1",
            b"fine_labels": label_N.tolist(),
            b"coarse_labels": [0] * len(label_N),
            b"data": pixels(label_N, seed),
        }
        (inner / name).write_bytes(python2_pickle.dumps(split))
    return inner


def _rows(label_N: np.ndarray, split: str) -> list[tuple[str, int]]:
    return [(f"{split}/{row:05d}", label) for row, label in enumerate(label_N.tolist())]


COPIES = [
    Copy(
        dataset="cifar10",
        build=build_cifar10,
        rows={"train": _rows(labels(40, 10, 0), "train"), "test": _rows(labels(8, 10, 1), "test")},
        num_classes=10,
        names=dict(enumerate(name.decode() for name in NAMES10)),
        ordered=("train", "test"),
        annotations=tuple(
            f"cifar-10-batches-py/{name}" for name in ("batches.meta", "data_batch_1", "data_batch_5", "test_batch")
        ),
    ),
    Copy(
        dataset="cifar100",
        build=build_cifar100,
        rows={"train": _rows(labels(40, 100, 2), "train"), "test": _rows(labels(10, 100, 3), "test")},
        num_classes=100,
        names=dict(enumerate(name.decode() for name in NAMES100)),
        ordered=("train", "test"),
        annotations=("cifar-100-python/meta", "cifar-100-python/train", "cifar-100-python/test"),
    ),
]
