"""The same images as a folder, as tars and in a bucket give the same store; a changed tar costs its changed images."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from tars import jpeg, labelled, write_tar

from cleanctl import api
from cleanctl.config import EmbedConfig
from cleanctl.datasets.source import open_files
from cleanctl.images import loaders
from cleanctl.images.nvjpeg_loader import NvjpegLoader
from cleanctl.paths import tars_path
from cleanctl.store import Store

COUNT = 40


@pytest.fixture
def config(tiny_model, kind, monkeypatch) -> EmbedConfig:
    if kind == "nvjpeg on cpu":
        kind = "nvjpeg"
        monkeypatch.setattr(loaders, "open_nvjpeg", partial(NvjpegLoader, device="cpu"))
    workers = 1 if kind == "torch" else 2
    return EmbedConfig(
        source="", model=f"local-dir:{tiny_model}", loader=kind, device="cpu", prompts="photo", workers=workers
    )


def embeddings(path) -> dict[str, bytes]:
    """name of an image → its embedding and digest, whatever its key is in that source."""
    split = Store.open(path).split("train")
    image_ND = np.concatenate([image for _, image in split.blocks()])
    digests = split.fingerprints().digest_N16
    keys = split.keys()
    names = [key.rpartition("/")[2].removesuffix(".jpg") for key in keys]
    return {name: image_ND[row].tobytes() + digests[row].tobytes() for row, name in enumerate(names)}


@pytest.fixture
def sources(tmp_path) -> dict[str, str]:
    for number in range(COUNT):
        path = tmp_path / "folder" / ("cat", "dog")[number % 2] / f"{number:05d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(jpeg(number))
    for shard in range(4):
        write_tar(tmp_path / f"tars/{shard}.tar", labelled(10, start=10 * shard))
    return {"folder": str(tmp_path / "folder"), "tars": str(tmp_path / "tars")}


def test_folder_tars_and_bucket_give_the_same_embeddings_and_a_second_run_none(config, sources, s3, tmp_path):
    away = "folder" if config.loader == "ffcv" else "tars"
    sources["away"] = s3.fill(Path(sources[away]))
    found = {}
    for name, source in sources.items():
        here = replace(config, source=source)
        first = api.embed(here, store=tmp_path / f"{name}.zarr").splits[0]
        assert (first.images, first.ok, first.embedded) == (COUNT, COUNT, COUNT)
        s3.requests.clear()
        assert api.embed(here, store=tmp_path / f"{name}.zarr").splits[0].embedded == 0
        assert s3.reads() == [], "a second run reads no image and no tar"
        found[name] = embeddings(tmp_path / f"{name}.zarr")
    for name in sources:
        for key, row in found["folder"].items():
            assert found[name][key][-16:] == row[-16:]
            # Batches are composed in key order, which is another in tars; the last bit of a row may depend on it.
            one, other = (np.frombuffer(data[:-16], np.float16).astype(np.float32) for data in (row, found[name][key]))
            assert np.abs(one - other).max() < 2e-3
        assert len(found[name]) == COUNT


def test_a_changed_tar_has_its_changed_images_alone_embedded_again(config, sources, tmp_path):
    config, store = replace(config, source=sources["tars"]), tmp_path / "s.zarr"
    api.embed(config, store=store)
    before = embeddings(store)
    made = labelled(11, start=10)  # one image more …
    made[4] = ("00012.jpg", jpeg(17))  # … and one that is another
    write_tar(tmp_path / "tars/1.tar", made)
    done = api.embed(config, store=store).splits[0]
    assert (done.images, done.ok, done.embedded) == (COUNT + 1, COUNT + 1, 2)
    after = embeddings(store)
    assert after["00012"] != before["00012"]
    assert after["00012"] == after["00017"] or np.allclose(
        *(np.frombuffer(after[name][:-16], np.float16).astype(np.float32) for name in ("00012", "00017")), atol=2e-3
    )
    assert all(after[name] == before[name] for name in before if name != "00012")


def test_an_unreadable_image_in_a_tar_is_a_failed_row_and_its_head_is_told(config, tmp_path):
    made = labelled(6)
    made[2] = ("00001.jpg", b"<html>404</html>")
    made[4] = ("00002.jpg", b"")
    write_tar(tmp_path / "tars/s.tar", made)
    done = api.embed(replace(config, source=str(tmp_path / "tars")), store=tmp_path / "s.zarr").splits[0]
    assert (done.images, done.ok, done.failed) == (6, 4, 2)
    assert dict(done.failures)["s/00001"] == "not a readable image: HTML page"
    assert api.embed(replace(config, source=str(tmp_path / "tars")), store=tmp_path / "s.zarr").splits[0].embedded == 0


def test_the_command_line_keeps_a_url_as_it_is_typed_and_later_verbs_find_it(sources, tiny_model, tmp_path):
    pytest.importorskip("fsspec")
    from typer.testing import CliRunner

    from cleanctl.cli import app

    url, store = f"file://{sources['tars']}", tmp_path / "s.zarr"
    (tmp_path / "c.txt").write_text("cat\ndog\n")
    options = ["--model", f"local-dir:{tiny_model}", "--prompts", "photo", "--device", "cpu", "--loader", "torch"]
    where = ["--classes", f"file://{tmp_path}/c.txt", "--store", str(store)]
    done = CliRunner().invoke(app, ["embed", url, *options, *where, "--json", "--workers", "0"])
    assert done.exit_code == 0, done.output
    opened = Store.open(store)
    assert opened.source["root"] == url
    files = open_files(opened.source, cache=tars_path(store))
    assert files is not None
    assert [content.reason for content in files.read(opened.split("train").keys())] == [""] * COUNT
