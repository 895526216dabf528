"""Instance-dependent noise from images: the labels of DeFT's generator, with a hundredth of its memory."""

from __future__ import annotations

import io
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from cleanctl.config import EmbedConfig, Noise
from cleanctl.datasets.noise import add_noise, label_hash
from cleanctl.datasets.noise.instance import PixelVectors, resized
from cleanctl.datasets.source import open_source
from cleanctl.errors import InputError, UsageError
from cleanctl.files.local import LocalStorage
from cleanctl.records import Dataset, SplitManifest

NOISE = Noise.parse("idn:0.4")


def by_the_book(vector_ND: np.ndarray, label_N: np.ndarray, rate: float, classes: int, seed: int) -> np.ndarray:
    """The equations one by one: all of W at once, a sample at a time, `numpy.random.choice` for each."""
    import torch
    from scipy import stats

    np.random.seed(seed)
    flip = stats.truncnorm((0 - rate) / 0.1, (1 - rate) / 0.1, loc=rate, scale=0.1).rvs(len(label_N))
    weight = torch.FloatTensor(np.random.randn(classes, vector_ND.shape[1], classes))
    probabilities = []
    for x, y, q in zip(torch.from_numpy(vector_ND).float(), label_N.tolist(), flip):
        logit = x @ weight[y]
        logit[y] = -torch.inf
        probability = q * torch.softmax(logit, dim=0)
        probability[y] += 1 - q
        probabilities.append(probability.double().numpy())
    return np.array([np.random.choice(classes, p=one / one.sum()) for one in probabilities])


@pytest.fixture
def cifar(build, tmp_path):
    build("cifar10", tmp_path)
    return open_source(EmbedConfig(source=tmp_path))


def vectors(dataset) -> np.ndarray:
    train = dataset.splits[1]
    images = [np.asarray(Image.open(io.BytesIO(one.data))) for one in dataset.files.read(train.keys)]
    return np.stack([image.transpose(2, 0, 1).reshape(-1) for image in images])


@pytest.mark.parametrize(("rate", "seed"), [(0.2, 1), (0.4, 1), (0.6, 7), (0.0, 1), (1.0, 1)])
def test_it_gives_the_labels_of_the_published_equations(cifar, rate, seed):
    noisy = add_noise(cifar, replace(NOISE, rate=rate), seed=seed)
    train = noisy.splits[1]
    wanted = by_the_book(vectors(cifar), train.truth_N, rate, 10, seed)
    assert train.label_N.tolist() == wanted.tolist()
    assert (train.truth_N == cifar.splits[1].label_N).all()
    assert f"label hash {label_hash(wanted)}" in noisy.notes[-1]
    assert abs(np.mean(train.label_N != train.truth_N) - rate) < 0.25


def test_labels_follow_the_published_order_and_not_that_of_keys(cifar):
    train = cifar.splits[1]
    turned = replace(train, published_N=np.arange(40)[::-1].copy())
    one, other = (
        add_noise(replace(cifar, splits=(cifar.splits[0], split)), NOISE, seed=1).splits[1] for split in (train, turned)
    )
    wanted = by_the_book(vectors(cifar)[::-1].copy(), train.label_N[::-1], 0.4, 10, 1)
    assert other.label_N[::-1].tolist() == wanted.tolist()
    assert one.label_N.tolist() != other.label_N.tolist()


def photographs(folder, sizes: list[tuple[int, int]]) -> Dataset:
    rng = np.random.default_rng(0)
    for number, size in enumerate(sizes):
        Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    keys = [f"{number}.png" for number in range(len(sizes))]
    train = SplitManifest(split="train", keys=keys, label_N=np.arange(len(keys), dtype=np.int32) % 3)
    return Dataset(files=LocalStorage.of(folder), layout="", classes=("a", "b", "c"), splits=(train,))


def test_photographs_are_resized_and_taken_channel_last(tmp_path):
    dataset = photographs(tmp_path, [(50, 70), (64, 64), (90, 40), (33, 20), (200, 128), (64, 64)])
    images = [np.asarray(Image.open(tmp_path / key)) for key in dataset.splits[0].keys]
    vector_ND = np.stack([resized(image, 64).reshape(-1) for image in images])
    assert (vector_ND[1] == images[1].reshape(-1)).all()
    wanted = by_the_book(vector_ND, dataset.splits[0].label_N, 0.4, 3, 1)
    assert add_noise(dataset, NOISE, seed=1).splits[0].label_N.tolist() == wanted.tolist()


@pytest.mark.parametrize("size", [(50, 70), (64, 64), (128, 256), (300, 31), (1, 1), (7, 640)])
def test_resizing_is_opencvs(size):
    cv2 = pytest.importorskip("cv2")
    image = np.random.default_rng(1).integers(0, 256, (*size, 3), dtype=np.uint8)
    assert np.abs(resized(image, 64).astype(int) - cv2.resize(image, (64, 64))).max() <= 1


def test_resizing_takes_the_four_nearest_pixels():
    ramp = np.broadcast_to(np.arange(0, 256, 2, dtype=np.uint8)[None, :, None], (16, 128, 3))
    found = resized(ramp, 64)
    assert found.shape == (64, 64, 3)
    assert (found == (4 * np.arange(64) + 1)[None, :, None]).all()


def test_an_unreadable_image_keeps_its_label_and_is_counted(tmp_path):
    dataset = photographs(tmp_path, [(40, 40)] * 12)
    before = add_noise(dataset, replace(NOISE, rate=0.9), seed=1).splits[0].label_N
    (tmp_path / "0.png").write_bytes(b"no image")
    (tmp_path / "7.png").unlink()
    noisy = add_noise(dataset, replace(NOISE, rate=0.9), seed=1)
    assert "2 images could not be read and keep their labels" in noisy.notes[-1]
    others = [row for row in range(12) if row not in (0, 7)]
    assert noisy.splits[0].label_N[others].tolist() == before[others].tolist()
    assert noisy.splits[0].label_N[[0, 7]].tolist() == dataset.splits[0].label_N[[0, 7]].tolist()


def test_what_it_cannot_be_made_from_is_refused(tmp_path):
    dataset = photographs(tmp_path, [(20, 20), (20, 21)])
    with pytest.raises(InputError, match=r"'1\.png' has 21 × 20 pixels, others 20 × 20"):
        add_noise(dataset, NOISE, seed=1)
    with pytest.raises(UsageError, match="two classes"):
        add_noise(replace(dataset, classes=("a",)), NOISE, seed=1)
    for path in tmp_path.iterdir():
        path.unlink()
    with pytest.raises(InputError, match="No image of"):
        add_noise(dataset, NOISE, seed=1)


def test_memory_holds_one_class_of_the_projection(build, tmp_path):
    build("cifar100", tmp_path)
    dataset = open_source(EmbedConfig(source=tmp_path))
    whole = 100 * 3072 * 100 * 8
    tracemalloc.start()
    try:
        add_noise(dataset, NOISE, seed=1)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < whole / 10
    assert PixelVectors(dataset.files, dataset.splits[1].keys).size == 3072
