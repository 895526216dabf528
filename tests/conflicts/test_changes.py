"""What `conflicts` says while things change: images that are gone, labels and splits that are others, tars, arrays."""

from __future__ import annotations

import json
import tarfile

import numpy as np
import pytest
from typer.testing import CliRunner

from cleanctl import api
from cleanctl.cli import app
from cleanctl.config import ConflictsConfig, EmbedConfig, ImportConfig, SelectConfig
from cleanctl.conflicts.read import read_conflicts
from cleanctl.errors import StoreError, UsageError
from cleanctl.store import Store

CONFIG = ConflictsConfig(loader="torch", workers=0, placeholder_copies=2)


def select(few, strategy="~conflict.leak"):
    return api.select(SelectConfig(strategy=strategy, device="cpu", fallback="none"), store=few.path)


def embed_again(few):
    model = few.store.encoder["model"]
    api.embed(EmbedConfig(source=few.root, model=model, prompts="photo", loader="torch", workers=0), store=few.path)


def test_rules_of_a_split_whose_labels_changed_are_refused_with_the_command_to_type(few):
    assert select(few).kept < select(few, "conflict.match | ~conflict.match").kept
    label = sorted((few.root / "train").iterdir())
    moved = next(label[0].iterdir())
    moved.rename(label[1] / f"moved-{moved.name}")
    embed_again(few)
    with pytest.raises(StoreError, match="conflict") as told:
        select(few)
    assert "cleanctl conflicts" in str(told.value)
    api.conflicts(CONFIG, store=few.path)
    assert select(few).kept


def test_leaks_are_out_of_date_once_the_other_split_changes(few):
    leak = few.of("leak")[0]
    (few.root / leak.donor).unlink()
    embed_again(few)
    found = few.found
    assert "split 'test' changed" in found.outdated
    assert not any(group.leaks for group in found.groups)
    with pytest.raises(StoreError, match="older"):
        select(few)
    assert api.conflicts(CONFIG, store=few.path).counts[-1].images < few.summary.counts[-1].images


def test_where_images_are_gone_embeddings_alone_are_compared_and_that_is_said(few, tiny):
    few.root.rename(few.root.with_name("elsewhere"))
    recorder = tiny.Recorder()
    summary = api.conflicts(CONFIG, store=few.path, progress=recorder)
    assert "embeddings alone" in summary.compared_by
    assert any("images are not here" in text for text in recorder.warnings)
    exact = {one.kind: one.images for one in summary.counts}["exact"]
    assert exact == {one.kind: one.images for one in few.summary.counts}["exact"]


def test_some_unreadable_images_are_counted(few, tiny):
    (few.root / few.of("reencoded")[0].key).write_bytes(b"")
    recorder = tiny.Recorder()
    summary = api.conflicts(CONFIG, store=few.path, progress=recorder)
    assert summary.unreadable == 1
    assert any("1 images could be read by embed" in text for text in recorder.warnings)


def test_images_in_tars_give_the_same_groups(few, tmp_path):
    folder = tmp_path / "tars"
    folder.mkdir()
    classes = few.store.classes
    for split in ("train", "test"):
        with tarfile.open(folder / f"{split}-000.tar", "w") as tar:
            files = [file for file in (few.root / split).rglob("*.jpg") if file.parent.name in classes]
            for number, file in enumerate(sorted(files)):
                tar.add(file, f"{number:05d}.jpg")
                label = tmp_path / "label"
                label.write_text(str(classes.index(file.parent.name)))
                tar.add(label, f"{number:05d}.cls")
    (tmp_path / "classes.txt").write_text("\n".join(classes))
    embed = EmbedConfig(
        source=folder, classes=tmp_path / "classes.txt", model=few.store.encoder["model"], prompts="photo",
        loader="torch", workers=0,
    )  # fmt: skip
    api.embed(embed, store=tmp_path / "tars.zarr")
    summary = api.conflicts(CONFIG, store=tmp_path / "tars.zarr")
    assert summary.counts == few.summary.counts
    assert summary.compared_by == "pixels"


def test_imported_embeddings_are_compared_as_they_are(tmp_path):
    rng = np.random.default_rng(0)
    image_ND = rng.standard_normal((200, 16)).astype(np.float32)
    image_ND[7] = image_ND[3]
    np.save(tmp_path / "x.npy", image_ND)
    np.save(tmp_path / "y.npy", np.arange(200) % 4)
    config = ImportConfig(image_embeddings=tmp_path / "x.npy", labels=tmp_path / "y.npy")
    api.import_arrays(config, store=tmp_path / "s.zarr")
    api.conflicts(ConflictsConfig(), store=tmp_path / "s.zarr")
    store = Store.open(tmp_path / "s.zarr")
    found = read_conflicts(store, store.split("train"))
    assert found is not None
    assert [group.row_K.tolist() for group in found.groups] == [[3, 7]]
    image_ND[7] = image_ND[11]
    np.save(tmp_path / "x.npy", image_ND)
    api.import_arrays(config, store=tmp_path / "s.zarr")
    store = Store.open(tmp_path / "s.zarr")
    assert "images of split 'train' changed" in read_conflicts(store, store.split("train")).outdated


def test_the_command_prints_what_the_store_then_holds(few, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = ["conflicts", "--loader", "torch", "--workers", "0", "--placeholder-copies", "2", "--out", "c.json"]
    done = CliRunner().invoke(app, [*arguments, "--store", str(few.path), "--json"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told["groups"] == len(few.found.groups)
    assert {row["group"] for row in json.loads((tmp_path / "c.json").read_text())} == set(range(told["groups"]))
    shown = CliRunner().invoke(app, [*arguments, "--store", str(few.path)])
    assert "leaks: also in split test" in shown.output
    assert "Largest groups" in shown.output


def test_options_that_do_not_go_together_are_refused():
    with pytest.raises(UsageError, match="--no-leaks"):
        ConflictsConfig(no_leaks=True, against=("test",))
    with pytest.raises(UsageError, match="the split itself"):
        ConflictsConfig(against=("train",))
