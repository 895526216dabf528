"""CIFAR and MNIST as their pages ship them: recognised, in published order, and each odd file told by its name."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import shutil

import numpy as np
import pytest
from PIL import Image

from cleanctl.config import EmbedConfig
from cleanctl.datasets.cifar_classes import CIFAR10_CLASSES, CIFAR100_CLASSES, CIFAR100_SUPERCLASSES
from cleanctl.datasets.source import open_files, open_source
from cleanctl.errors import InputError, UsageError
from cleanctl.files.pixel_storage import bmp_file
from cleanctl.files.storage import CHANGED

NAMES = ["cifar10", "cifar100", "mnist"]


def open_(source, **options):
    return open_source(EmbedConfig(source=source, **options))


def pixels_of(content) -> np.ndarray:
    assert content.reason == ""
    assert content.size == len(content.data)
    image = Image.open(io.BytesIO(content.data))
    assert image.mode == "RGB"
    return np.asarray(image)


@pytest.mark.parametrize("classes", [10, 100])
@pytest.mark.parametrize("where", ["root", "inner folder", "pickles in the root"])
def test_cifar_is_recognised_and_gives_published_rows_labels_and_pixels(layout, tmp_path, classes, where):
    cifar = layout("cifar")
    inner = (cifar.build_cifar10 if classes == 10 else cifar.build_cifar100)(tmp_path / "a")
    if where == "pickles in the root":
        inner = shutil.move(inner, tmp_path / "b")
    dataset = open_(tmp_path / "a" if where == "root" else inner)
    assert dataset.layout == f"cifar{classes}"
    assert dataset.classes == tuple(name.decode() for name in (cifar.NAMES10 if classes == 10 else cifar.NAMES100))
    test, train = dataset.splits
    assert train.keys == [f"train/{row:05d}" for row in range(40)]
    assert test.keys[-1] == f"test/{len(test) - 1:05d}"
    assert train.published_N.tolist() == list(range(40))
    files = [f"data_batch_{number}" for number in range(1, 6)] if classes == 10 else ["train"]
    batches = []
    for file in files:
        with open(f"{inner}/{file}", "rb") as opened:
            batches.append(pickle.load(opened, encoding="bytes"))  # by Python itself
    label = [label for batch in batches for label in batch[b"labels" if classes == 10 else b"fine_labels"]]
    assert train.label_N.tolist() == label
    wanted = np.concatenate([batch[b"data"] for batch in batches]).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    found = [pixels_of(content) for content in dataset.files.read(train.keys)]
    assert (np.stack(found) == wanted).all()


@pytest.mark.parametrize("packed", [("train", "t10k"), ("train",), ()])
@pytest.mark.parametrize("inner", ["", "MNIST/raw"])
def test_mnist_plain_and_packed_gives_the_same_rgb_images(layout, tmp_path, packed, inner):
    mnist = layout("mnist")
    mnist.build(tmp_path / inner, packed=packed)
    dataset = open_(tmp_path)
    assert (dataset.layout, dataset.classes) == ("mnist", tuple("0123456789"))
    test, train = dataset.splits
    assert tuple(train.label_N[:10].tolist()) == mnist.FIRST_LABELS
    wanted = mnist.digits(test.label_N, 1)
    found = np.stack([pixels_of(content) for content in dataset.files.read(test.keys)])
    assert (found == wanted[..., None]).all()


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 28, 28), (3, 5, 7), (1, 1, 1), (3, 2, 5)])
def test_an_image_becomes_a_file_of_the_same_pixels(shape):
    pixel_CHW = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    found = np.asarray(Image.open(io.BytesIO(bmp_file(pixel_CHW))))
    assert (found == np.broadcast_to(pixel_CHW.transpose(1, 2, 0), found.shape)).all()


def test_the_class_names_are_the_prompt_sets_and_each_class_has_one_superclass(layout):
    from cleanctl.prompts.prompt_set import resolve_prompts

    for classes in (CIFAR10_CLASSES, CIFAR100_CLASSES):
        prompts = resolve_prompts("features", classes)
        assert len(prompts.prompts) == 8 * len(classes)
    assert sorted(name for five in CIFAR100_SUPERCLASSES.values() for name in five) == list(CIFAR100_CLASSES)
    assert list(CIFAR100_SUPERCLASSES) == [name.decode() for name in layout("cifar").COARSE_NAMES]


@pytest.mark.parametrize("name", NAMES)
def test_a_store_finds_the_images_again_and_keys_that_are_none_are_told(build, tmp_path, name):
    build(name, tmp_path)
    dataset = open_(tmp_path, dataset=name)
    files = open_files({"root": str(tmp_path), "layout": name})
    copy = pickle.loads(pickle.dumps(files))  # as it goes to a worker
    keys = [*dataset.splits[1].keys[:3], "train/99999", "x", "train/1", "train/0000٣", *dataset.splits[0].keys[:2]]
    reasons = [content.reason for content in copy.read(keys)]
    assert reasons == ["", "", "", *["not in the archive"] * 4, "", ""]
    stat = files.stat(keys)
    assert stat.size_N.tolist() == [len(content.data) if not content.reason else -1 for content in files.read(keys)]
    assert (stat.mtime_ns_N[:3] == [content.mtime_ns for content in files.read(keys[:3])]).all()
    assert files.head(keys[0], 2) == b"BM"


@pytest.mark.parametrize("name", NAMES)
def test_a_file_that_changed_since_it_was_listed_gives_failed_rows(build, tmp_path, name):
    build(name, tmp_path)
    dataset = open_(tmp_path, dataset=name)
    keys = dataset.splits[1].keys[:2]
    file = tmp_path / dataset.files.blocks[0].file
    os.utime(file, ns=(1, 2 * 10**9))
    assert all(CHANGED in content.reason for content in dataset.files.read(keys))
    file.unlink()
    assert all("not found" in content.reason for content in dataset.files.read(keys))
    assert dataset.files.stat(keys).size_N.tolist() == [-1, -1]


@pytest.mark.parametrize("name", NAMES)
def test_each_missing_and_each_truncated_file_is_named_with_its_origin(build, tmp_path, name):
    build(name, tmp_path / "whole")
    files = [path.relative_to(tmp_path / "whole") for path in (tmp_path / "whole").rglob("*") if path.is_file()]
    assert len(files) >= 3
    for number, file in enumerate(files):
        for way in ("missing", "truncated", "empty"):
            copy = tmp_path / f"{number}-{way}"
            shutil.copytree(tmp_path / "whole", copy)
            if way == "missing":
                (copy / file).unlink()
            else:
                data = (copy / file).read_bytes()
                (copy / file).write_bytes(data[: len(data) // 2] if way == "truncated" else b"")
            with pytest.raises(InputError) as caught:
                open_(copy, dataset=name)
            said = str(caught.value)
            assert str(copy / file).removesuffix(".gz") in said, way
            assert "http" in said, (file, way)


def change(folder, name: str, **fields) -> None:
    """Writes a pickle again with some fields changed."""
    path = next(folder.rglob(name))
    found = pickle.loads(path.read_bytes(), encoding="bytes")
    path.write_bytes(pickle.dumps({**found, **{key.encode(): value for key, value in fields.items()}}, protocol=4))


@pytest.mark.parametrize(
    ("file", "fields", "words"),
    [
        ("data_batch_3", {"labels": [1] * 7}, "7 labels for 8 images"),
        ("data_batch_3", {"labels": [1] * 7 + [10]}, "label 10 in row 7; the classes are 0 to 9"),
        ("data_batch_3", {"labels": [1] * 7 + [-1]}, "label -1 in row 7"),
        ("data_batch_3", {"labels": None}, "no list of labels"),
        ("test_batch", {"data": np.zeros((8, 3072), np.int64)}, "no array 'data' of N × 3072 bytes"),
        ("test_batch", {"data": np.zeros((8, 3071), np.uint8)}, "no array 'data'"),
        ("test_batch", {"data": [[0] * 3072] * 8}, "no array 'data'"),
        ("batches.meta", {"label_names": [b"airplane", b"car"]}, "class 1 'car', not 'automobile'"),
        ("batches.meta", {"label_names": [b"airplane"]}, "names 1 classes, not 10"),
        ("batches.meta", {"label_names": 7}, "no list 'label_names'"),
    ],
)
def test_an_odd_pickle_is_told_by_name_and_fact(build, tmp_path, file, fields, words):
    build("cifar10", tmp_path)
    change(tmp_path, file, **fields)
    with pytest.raises(InputError, match=words) as caught:
        open_(tmp_path)
    assert file in str(caught.value)
    assert "cs.toronto.edu" in str(caught.value)


def training_files(folder) -> list[bytes]:
    dataset = open_(folder)
    return [content.data for content in dataset.files.read(dataset.splits[1].keys)]


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_pickles_written_again_by_python_3_are_read_where_pixels_are_plain(build, tmp_path, protocol):
    build("cifar10", tmp_path)
    before = training_files(tmp_path)
    for path in (tmp_path / "cifar-10-batches-py").iterdir():
        path.write_bytes(pickle.dumps(pickle.loads(path.read_bytes(), encoding="latin1"), protocol=protocol))
    assert training_files(tmp_path) == before
    change(tmp_path, "test_batch")
    path = next(tmp_path.rglob("test_batch"))
    path.write_bytes(pickle.dumps(pickle.loads(path.read_bytes(), encoding="latin1"), protocol=2))
    with pytest.raises(InputError, match="does not keep pixels as plain bytes"):
        open_(tmp_path)


class Attack:
    def __reduce__(self):
        return os.system, ("touch attacked",)


def test_a_malicious_pickle_in_the_folder_runs_nothing(build, tmp_path, monkeypatch):
    build("cifar10", tmp_path)
    monkeypatch.chdir(tmp_path)
    for file in ("data_batch_2", "batches.meta"):
        change(tmp_path, file, data=Attack())
        with pytest.raises(InputError, match=rf"{file}' is not read: it asks for posix\.system"):
            open_(tmp_path)
    assert not (tmp_path / "attacked").exists()


def test_both_cifars_in_one_root_must_be_named(build, tmp_path):
    build("cifar10", tmp_path)
    build("cifar100", tmp_path)
    with pytest.raises(UsageError, match="recognised as each of: cifar10, cifar100"):
        open_(tmp_path)
    assert [open_(tmp_path, dataset=name).layout for name in NAMES[:2]] == NAMES[:2]
    assert open_(tmp_path / "cifar-100-python").layout == "cifar100"


def test_a_folder_that_is_none_says_what_was_looked_for(layout, tmp_path):
    (tmp_path / "x.jpg").write_bytes(b"")
    for name, words in (("cifar10", "cifar-10-batches-py/"), ("cifar100", "cifar-100-python/"), ("mnist", "MNIST/raw")):
        with pytest.raises(InputError, match=words):
            open_(tmp_path, dataset=name)
        with pytest.raises(UsageError, match="is no folder of this machine"):
            open_(tmp_path / "x.jpg", dataset=name)


def test_files_of_fashion_mnist_are_not_taken_for_mnist(build, tmp_path):
    build("mnist", tmp_path)
    path = tmp_path / "train-labels-idx1-ubyte.gz"
    data = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(data[:8] + bytes([9, 0, 0, 3]) + data[12:]))
    with pytest.raises(InputError, match=r"are 9, 0, 0, 3, .*FashionMNIST.*--classes"):
        open_(tmp_path)
    (tmp_path / "names.txt").write_text("\n".join(f"class {number}" for number in range(10)))
    assert open_(tmp_path, classes=tmp_path / "names.txt").classes[3] == "class 3"
