"""Label noise: the published sets come out again, and a rate that makes no sense is refused by name."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from cleanctl.datasets.noise import CIFAR10_CLASSES, add_noise, corrupt, label_hash, parse_noise
from cleanctl.errors import UsageError
from cleanctl.files.local import LocalStorage
from cleanctl.records import Dataset, SplitManifest

CIFAR_TABLE = Path(__file__).parents[3] / "shared/data/cifar10/labels_train.csv"


@pytest.fixture(scope="module")
def cifar_labels() -> np.ndarray:
    if not CIFAR_TABLE.is_file():
        pytest.skip("needs CIFAR-10's labels beside the checkout")
    with open(CIFAR_TABLE) as file:
        return np.array([int(row["clean"]) for row in csv.DictReader(file)], dtype=np.int32)


@pytest.mark.parametrize(
    ("noise", "wrong", "digest"),
    [
        ("symmetric:0.2", 0.18084, "2665a799e7a7ca28"),
        ("symmetric:0.5", 0.45024, "eb084b288eff675d"),
        ("symmetric:0.8", 0.71848, "3a50930139d4ece1"),
        ("symmetric:0.9", 0.80956, "c8113ad72a127821"),
        ("asymmetric:0.4", 0.2008, "3252de085bf1991e"),
    ],
)
def test_seed_3047_gives_the_published_cifar10_labels(cifar_labels, noise, wrong, digest):
    noisy = corrupt(cifar_labels, kind_rate=noise, num_classes=10, seed=3047, classes=CIFAR10_CLASSES)
    assert np.mean(noisy != cifar_labels) == pytest.approx(wrong, abs=1e-9)
    assert label_hash(noisy) == digest


def test_the_same_samples_are_drawn_as_in_the_published_code():
    """Needs no data: with a class of its own for the drawn ones, the first index drawn at rate 1/50000 is 33358."""
    label = np.zeros(50_000, dtype=np.int32)
    drawn = corrupt(label, kind_rate="pair:0.0001", num_classes=2, seed=3047)
    assert sorted(np.flatnonzero(drawn).tolist()) == [26784, 30140, 31047, 33358, 37345]


def test_symmetric_noise_includes_the_true_class():
    label = np.zeros(20_000, dtype=np.int32)
    noisy = corrupt(label, kind_rate="symmetric:1", num_classes=4, seed=1)
    assert np.bincount(noisy, minlength=4) / 20_000 == pytest.approx([0.25] * 4, abs=0.02)


def test_asymmetric_noise_on_other_data_is_the_next_class_and_wraps():
    label = np.array([0, 1, 2] * 100, dtype=np.int32)
    noisy = corrupt(label, kind_rate="asymmetric:1", num_classes=3, seed=0, classes=("a", "b", "c"))
    assert (noisy == (label + 1) % 3).all()


def test_another_seed_gives_other_labels_and_the_input_is_left_alone():
    label = np.arange(1000, dtype=np.int32) % 10
    before = label.copy()
    first, again, other = (corrupt(label, kind_rate="symmetric:0.5", num_classes=10, seed=seed) for seed in (1, 1, 2))
    assert label_hash(first) == label_hash(again) != label_hash(other)
    assert (label == before).all()


@pytest.mark.parametrize("text", ["0.4", "symmetric", "symmetric:", "symmetric:1.5", "sym:0.4", "pair:x", "pair:nan"])
def test_a_noise_that_makes_no_sense_is_refused_and_quoted(text):
    with pytest.raises(UsageError, match=text.replace(".", r"\.")):
        parse_noise(text)


def test_noise_keeps_the_former_labels_as_truth_and_is_written_down():
    train = SplitManifest(split="train", keys=[str(i) for i in range(100)], label_N=np.zeros(100, np.int32))
    test = SplitManifest(split="test", keys=["t"], label_N=np.zeros(1, np.int32))
    dataset = Dataset(files=LocalStorage("x"), layout="class folders", classes=("a", "b"), splits=(test, train))
    noisy = add_noise(dataset, kind_rate="pair:0.3", seed=5)
    assert noisy.splits[0] is test
    assert (noisy.splits[1].truth_N == 0).all()
    assert noisy.splits[1].label_N.sum() == 30
    assert label_hash(noisy.splits[1].label_N) in noisy.notes[-1]


def test_noise_without_a_training_split_is_refused():
    test = SplitManifest(split="test", keys=["t"], label_N=np.zeros(1, np.int32))
    dataset = Dataset(files=LocalStorage("x"), layout="split folders", classes=("a", "b"), splits=(test,))
    with pytest.raises(UsageError, match="test"):
        add_noise(dataset, kind_rate="pair:0.3", seed=5)
