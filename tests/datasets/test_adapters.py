"""A dataset is one file and one entry point: embed, select and train follow from it, its rows kept in an archive."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import commands
import numpy as np
import pytest

from cleanctl import api
from cleanctl.config import EmbedConfig, Noise
from cleanctl.datasets.adapter import DatasetAdapter
from cleanctl.datasets.noise import corrupt, label_hash
from cleanctl.datasets.source import open_files, open_files_for_page, open_source
from cleanctl.errors import InputError, MissingPackageError, UsageError
from cleanctl.registry import DATASETS
from cleanctl.store import Store

ROOT = Path(__file__).resolve().parents[2]
COUNT = 48
CLASSES = ("cat", "dog")


def write_archive(path: Path, *, changed: int | None = None) -> None:
    rng = np.random.default_rng(0)
    label_N = np.arange(COUNT) % 2
    pixel_NHWC = rng.integers(0, 90, (COUNT, 32, 32, 3), dtype=np.uint8)
    pixel_NHWC[..., 0] += (140 * label_N[:, None, None]).astype(np.uint8)
    if changed is not None:
        pixel_NHWC[changed] //= 2
    split_N = np.where(np.arange(COUNT) < 40, "train", "test")
    np.savez(path, pixel=pixel_NHWC, label=label_N, split=split_N, classes=np.array(CLASSES))


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """A folder for PYTHONPATH with a package that brings the toy dataset."""
    folder = tmp_path_factory.mktemp("installed")
    shutil.copy(Path(__file__).with_name("toy_dataset.py"), folder)
    about = folder / "toy-0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: toy\nVersion: 0\n")
    (about / "entry_points.txt").write_text("[cleanctl.datasets]\ntoy = toy_dataset:ToyDataset\n")
    return folder


def command(folder: Path, installed: Path, *words: str) -> tuple[dict, str]:
    """(what the command printed as JSON, what it told people)"""
    path = os.pathsep.join(map(str, (installed, ROOT, ROOT / "kernels")))
    environment = {**os.environ, "PYTHONPATH": path, "CLEANCTL_STORE": str(folder / "cleanctl.zarr")}
    done = commands.run("-m", "cleanctl", *words, "--json", env=environment, cwd=folder)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), " ".join(done.stderr.split())


def test_a_dataset_of_another_package_goes_from_embed_to_train(installed, tiny_model, tmp_path, monkeypatch):
    write_archive(tmp_path / "toy.npz")
    loading = ("--loader", "torch", "--workers", "1", "--device", "cpu")
    model = ("--model", f"local-dir:{tiny_model}", "--prompts", "photo")
    embed = ("embed", "toy.npz", *model, *loading, "--noise", "symmetric:0.5", "--seed", "3047")
    done, told = command(tmp_path, installed, *embed)
    assert {split["split"]: split["embedded"] for split in done["splits"]} == {"test": 8, "train": 40}
    published = corrupt(np.arange(40)[::-1] % 2, Noise.parse("symmetric:0.5"), classes=CLASSES, seed=3047)
    assert f"label hash {label_hash(published)}), drawn in the dataset's published order" in told
    store = Store.open(tmp_path / "cleanctl.zarr")
    assert (store.source["layout"], store.source["root"]) == ("toy", str(tmp_path / "toy.npz"))
    assert store.split("train").label_N().tolist() == published[::-1].tolist()

    command(tmp_path, installed, "select", "--strategy", "zeroshot.match", "--name", "match")
    train = ("train", "--selection", "match", "--recipe", "cpu-small", "--epochs", "1", "--image-size", "32")
    done, _ = command(tmp_path, installed, *train, "--batch-size", "4", *loading)
    assert (done["epochs"], done["test_split"], done["selection"]) == (1, "test", "match")

    monkeypatch.syspath_prepend(str(installed))
    write_archive(tmp_path / "toy.npz", changed=3)
    config = EmbedConfig(
        source=tmp_path / "toy.npz", model=model[1], prompts="photo", noise="symmetric:0.5", seed=3047, workers=0,
        loader="torch", device="cpu",
    )  # fmt: skip
    again = api.embed(config, store=tmp_path / "cleanctl.zarr")
    assert {split.split: split.embedded for split in again.splits} == {"test": 0, "train": 1}


def test_an_option_that_a_dataset_does_not_take_is_refused(installed, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(installed))
    write_archive(tmp_path / "toy.npz")
    (tmp_path / "l.csv").write_text("path,label\n00000.png,cat\n")
    assert open_source(EmbedConfig(source=tmp_path / "toy.npz")).layout == "toy"
    assert "toy" in DATASETS.names()
    for options, words in (
        ({"labels": tmp_path / "l.csv", "truth_column": "x"}, "--labels and --truth-column .* 'toy'"),
        ({"dataset": "animal10n", "labels": tmp_path / "l.csv"}, "--labels .* 'animal10n'"),
        ({"dataset": "folders", "label_column": "y"}, "--label-column .* 'folders'"),
        ({"dataset": "label-table"}, "without --labels"),
        ({"dataset": "tyo"}, "did you mean 'toy'"),
    ):
        with pytest.raises(UsageError, match=words):
            open_source(EmbedConfig(source=tmp_path / "toy.npz", **options))


def test_keys_that_another_package_gives_twice_are_refused_by_name(installed, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(installed))
    from toy_dataset import ToyDataset

    def twice(adapter, request, opened=ToyDataset.open):
        dataset = opened(adapter, request)
        keys = [*dataset.splits[1].keys[:-1], dataset.splits[1].keys[0]]
        return replace(dataset, splits=(dataset.splits[0], replace(dataset.splits[1], keys=keys)))

    write_archive(tmp_path / "toy.npz")
    monkeypatch.setattr(ToyDataset, "open", twice)
    with pytest.raises(InputError, match=r"Split 'train' of the dataset 'toy' names the key '00000\.png' twice"):
        open_source(EmbedConfig(source=tmp_path / "toy.npz"))
    assert open_source(EmbedConfig(source=tmp_path / "toy.npz", splits=("test",))).layout == "toy"


def test_every_dataset_of_the_registry_is_an_adapter():
    for name in DATASETS.built_in:
        assert issubclass(DATASETS.load(name), DatasetAdapter)


def test_a_file_of_no_kind_is_refused(tmp_path):
    (tmp_path / "x.zip").write_bytes(b"PK")
    with pytest.raises(InputError, match=r"is a file and no tar"):
        open_source(EmbedConfig(source=tmp_path / "x.zip"))


@pytest.mark.parametrize("layout", ["class folders", "split folders", "label table", "animal10n", None])
def test_a_store_of_an_earlier_version_finds_its_files(tmp_path, layout):
    (tmp_path / "a.jpg").write_bytes(b"x")
    files = open_files({"root": str(tmp_path), "layout": layout})
    assert [content.data for content in files.read(["a.jpg"])] == [b"x"]


def test_a_page_goes_without_the_images_of_a_dataset_that_is_not_installed(tiny, tmp_path):
    recorder = tiny.Recorder()
    source = {"root": str(tmp_path), "layout": "gone"}
    assert open_files_for_page(source, cache=None, progress=recorder) is None
    assert "fewer images" in recorder.warnings[0]
    assert "'gone'" in recorder.warnings[0]


def test_a_dataset_that_is_not_installed_is_told(tmp_path):
    with pytest.raises(MissingPackageError, match=r"'gone'.*not installed here"):
        open_files({"root": str(tmp_path), "layout": "gone"})
