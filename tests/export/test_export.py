"""`export` of a real store: each target holds what the selection table says, and is read back as its users do."""

from __future__ import annotations

import csv
import json
import os
import tarfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from cleanctl import api
from cleanctl.cli import app
from cleanctl.config import EmbedConfig, ExportConfig, SelectConfig
from cleanctl.errors import InputError, StoreError, UsageError
from cleanctl.export.targets.target import class_folders, file_names


@pytest.fixture(scope="module")
def store(tmp_path_factory, tiny_model, web_folder):
    """The tests' images, embedded, with a selection by a random model."""
    path = tmp_path_factory.mktemp("export") / "cleanctl.zarr"
    embed = EmbedConfig(
        source=web_folder, model=f"local-dir:{tiny_model}", prompts="photo", loader="torch", workers=0, device="cpu"
    )
    api.embed(embed, store=path)
    api.select(SelectConfig(strategy="zeroshot.match | logistic.match", name="mine"), store=path)
    return path


@pytest.fixture(scope="module")
def rows(store):
    """The selection table as dicts; kept ones have `keep`."""
    return api.read_selection(store, "mine").to_pylist()


def export(store, out, **options):
    return api.export(ExportConfig(out=out, **options), store=store)


def kept(rows):
    return [row for row in rows if row["keep"]]


def test_a_table_holds_the_kept_samples(store, rows, tmp_path):
    done = export(store, tmp_path / "kept.parquet")
    table = pq.read_table(tmp_path / "kept.parquet").to_pylist()
    assert [row["key"] for row in table] == [row["key"] for row in kept(rows)]
    assert [row["label"] for row in table] == [row["label"] for row in kept(rows)]
    assert done.samples == len(table) > 0
    assert export(store, tmp_path / "all.csv", take="all").to == "csv", "as its ending says"
    with (tmp_path / "all.csv").open() as file:
        assert len(list(csv.DictReader(file))) == len([row for row in rows if row["p_label"] is not None])


def test_filters_are_those_of_the_selection_table(store, rows, tmp_path):
    def keys(name, **options):
        export(store, tmp_path / f"{name}.parquet", **options)
        return [row["key"] for row in pq.read_table(tmp_path / f"{name}.parquet").to_pylist()]

    readable = [row for row in rows if row["p_label"] is not None]
    dropped = [row["key"] for row in readable if not row["keep"]]
    assert keys("dropped", take="dropped") == dropped
    one = readable[0]["label_name"]
    assert keys("class", take="all", classes=(one,)) == [row["key"] for row in readable if row["label_name"] == one]
    refused = [row["key"] for row in readable if not row["zeroshot.match.keep"]]
    assert keys("rule", take="all", rules=("zeroshot.match=dropped",)) == refused
    part = readable[0]["key"][-6:]
    assert keys("match", take="all", match=part) == [row["key"] for row in readable if part in row["key"]]
    low = [row["key"] for row in readable if row["p_label"] < np.float32(0.34)]
    assert keys("low", take="all", p_label_below=0.34) == low


def test_relabel_gives_the_suggested_label_above_a_probability(store, rows, tmp_path):
    readable = [row for row in rows if row["p_label"] is not None]
    threshold = float(np.median([row["p_max"] for row in readable]))
    wanted = {
        row["key"]: row["suggested_label"]
        for row in readable
        if row["suggested_label"] != row["label"] and row["p_max"] >= np.float32(threshold)
    }
    done = export(store, tmp_path / "new.parquet", relabel=threshold)
    table = {row["key"]: row for row in pq.read_table(tmp_path / "new.parquet").to_pylist()}
    assert done.relabelled == len(wanted) > 0
    assert {key: table[key]["label"] for key in wanted} == wanted
    assert all(row["label"] == row["given_label"] for key, row in table.items() if key not in wanted)
    assert set(table) == {row["key"] for row in kept(rows)} | set(wanted)


def test_links_and_copies_are_an_image_folder(store, rows, web_folder, tmp_path):
    from torchvision.datasets import ImageFolder

    for to in ("links", "copies"):
        done = export(store, tmp_path / to, to=to)
        found = ImageFolder(str(tmp_path / to), allow_empty=True)
        assert len(found) == done.samples == len(kept(rows))
        labels = sorted(Path(path).parent.name for path, _ in found.samples)
        assert labels == sorted(row["label_name"] for row in kept(rows))
    linked = {os.path.realpath(path) for path in (tmp_path / "links").glob("*/*") if path.is_symlink()}
    assert linked == {os.path.realpath(web_folder / row["key"]) for row in kept(rows)}
    contents = sorted(path.read_bytes() for path in (tmp_path / "copies").glob("*/*"))
    assert contents == sorted((web_folder / row["key"]).read_bytes() for row in kept(rows))


def test_lists_name_files_that_exist(store, rows, tmp_path):
    export(store, tmp_path / "list.txt", to="list")
    export(store, tmp_path / "manifest.csv", to="manifest")
    paths = (tmp_path / "list.txt").read_text().splitlines()
    with (tmp_path / "manifest.csv").open() as file:
        manifest = list(csv.DictReader(file))
    assert [row["path"] for row in manifest] == paths
    assert all(Path(path).is_file() for path in paths)
    assert [row["class_name"] for row in manifest] == [row["label_name"] for row in kept(rows)]


def test_tars_are_read_by_embed_again(store, rows, tiny_model, tmp_path):
    export(store, tmp_path / "tars", to="webdataset")
    (tar,) = (tmp_path / "tars").glob("*.tar")
    with tarfile.open(tar) as archive:
        names = archive.getnames()
    assert len(names) == 3 * len(kept(rows))
    embed = EmbedConfig(
        source=tmp_path / "tars", classes=tmp_path / "tars" / "classes.txt", model=f"local-dir:{tiny_model}",
        prompts="photo", loader="torch", workers=0, device="cpu",
    )  # fmt: skip
    summary = api.embed(embed, store=tmp_path / "again.zarr")
    assert sum(split.ok for split in summary.splits) == len(kept(rows))


def test_formats_of_other_libraries_hold_every_sample(store, rows, tmp_path):
    for to in ("huggingface", "fiftyone", "cleanlab"):
        export(store, tmp_path / to, to=to)
    export(store, tmp_path / "coco.json", to="coco")
    lines = [json.loads(line) for line in (tmp_path / "huggingface" / "train" / "metadata.jsonl").open()]
    assert [line["key"] for line in lines] == [row["key"] for row in kept(rows)]
    assert all((tmp_path / "huggingface" / "train" / line["file_name"]).is_file() for line in lines)
    fiftyone = json.loads((tmp_path / "fiftyone" / "labels.json").read_text())
    stems = {path.stem for path in (tmp_path / "fiftyone" / "data").iterdir()}
    assert stems == set(fiftyone["labels"])
    assert len(stems) == len(kept(rows))
    coco = json.loads((tmp_path / "coco.json").read_text())
    assert [image["file_name"] for image in coco["images"]] == [row["key"] for row in kept(rows)]
    assert [one["category_id"] for one in coco["annotations"]] == [row["label"] for row in kept(rows)]


def test_cleanlabs_users_get_every_sample_and_which_are_issues(store, rows, tmp_path):
    export(store, tmp_path / "issues", to="cleanlab")
    readable = [row for row in rows if row["suggested_label"] is not None]
    with (tmp_path / "issues" / "issues.csv").open(newline="") as file:
        issues = {line["key"]: line["is_label_issue"] == "True" for line in csv.DictReader(file)}
    assert issues == {row["key"]: not row["keep"] for row in readable}
    assert 0 < sum(issues.values()) < len(issues)
    assert len(np.load(tmp_path / "issues" / "labels.npy")) == len(issues)
    export(store, tmp_path / "kept", to="cleanlab", take="kept")
    assert len(np.load(tmp_path / "kept" / "labels.npy")) == len(kept(rows))


def test_hugging_face_datasets_reads_its_folder(store, rows, tmp_path):
    datasets = pytest.importorskip("datasets")
    export(store, tmp_path / "hf", to="huggingface")
    loaded = datasets.load_dataset(str(tmp_path / "hf"), split="train", cache_dir=str(tmp_path / "cache"))
    assert len(loaded) == len(kept(rows))
    assert loaded[0]["image"].size[0] > 0
    assert [row["key"] for row in loaded] == [row["key"] for row in kept(rows)]


def test_webdataset_reads_its_tars(store, rows, tmp_path):
    webdataset = pytest.importorskip("webdataset")
    export(store, tmp_path / "tars", to="webdataset")
    samples = list(webdataset.WebDataset(str(tmp_path / "tars" / "train-000000.tar"), shardshuffle=False).decode("pil"))
    assert [sample["json"]["key"] for sample in samples] == [row["key"] for row in kept(rows)]
    assert [sample["cls"] for sample in samples] == [row["label"] for row in kept(rows)]


def test_pycocotools_reads_its_file(store, rows, tmp_path):
    coco = pytest.importorskip("pycocotools.coco")
    export(store, tmp_path / "coco.json", to="coco")
    read = coco.COCO(str(tmp_path / "coco.json"))
    assert len(read.getImgIds()) == len(kept(rows))


def test_the_transition_matrix_of_joint_is_the_summary_s(store, tmp_path):
    with pytest.raises(StoreError, match="'mine' has no transition matrix"):
        export(store, tmp_path / "no.csv", to="transition", selection="mine")
    assert not (tmp_path / "no.csv").exists()
    summary = api.select(SelectConfig(strategy="joint", temperature="paper", name="by-joint"), store=store)
    export(store, tmp_path / "t.csv", to="transition", selection="by-joint")
    api.select(SelectConfig(strategy="zeroshot.match | logistic.match", name="mine"), store=store)  # the newest again
    pairs = summary.expected.transition
    with (tmp_path / "t.csv").open() as file:
        read = list(csv.DictReader(file))
    assert [(int(row["true_class"]), int(row["given_class"])) for row in read] == list(zip(pairs.true, pairs.given))
    assert [float(row["rate"]) for row in read] == list(pairs.rate)
    for true in {row["true_name"] for row in read}:
        assert sum(float(row["rate"]) for row in read if row["true_name"] == true) == pytest.approx(1, abs=1e-3)


def test_nothing_is_overwritten_and_a_dry_run_writes_nothing(store, tmp_path):
    done = export(store, tmp_path / "new", to="links", dry_run=True)
    assert done.samples > 0
    assert done.examples
    assert not (tmp_path / "new").exists()
    (tmp_path / "there").mkdir()
    with pytest.raises(InputError, match="exists already"):
        export(store, tmp_path / "there", to="copies")


def test_a_vanished_image_is_counted_and_left_out(store, web_folder, tmp_path, rows):
    gone = web_folder / kept(rows)[0]["key"]
    away = tmp_path / "away"
    gone.rename(away)
    try:
        done = export(store, tmp_path / "copies", to="copies")
        assert (done.missing, done.samples) == (1, len(kept(rows)) - 1)
    finally:
        away.rename(gone)


def test_what_is_not_there_is_an_error_with_what_is(store, tmp_path):
    for options, words in (
        ({"classes": ("unicorn",)}, "no class of the store"),
        ({"rules": ("knn.match=kept",)}, "not part of the selection"),
        ({"rules": ("zeroshot.match",)}, "RULE=kept or RULE=dropped"),
    ):
        with pytest.raises(UsageError) as caught:
            export(store, tmp_path / "x.parquet", **options)
        assert words in f"{caught.value.found} {caught.value.do}"
    said = CliRunner().invoke(app, ["export", str(tmp_path / "y"), "--to", "copis", "--store", str(store)])
    assert said.exit_code == 2
    assert "did you mean 'copies'?" in " ".join(said.stderr.split())


def test_names_are_plain_distinct_and_short():
    keys = ["a/b.jpg", "a__b.jpg", "A/B.JPG", "x" * 300 + ".png", "../../etc/passwd", "ä/ö.webp"]
    names = file_names(keys)
    assert len({name.casefold() for name in names}) == len(keys)
    assert all("/" not in name and not name.startswith(".") and len(name.encode()) <= 200 for name in names)
    folders = class_folders(["a/b", "a_b", "..", "<script>", "ok", "\x1b[31m"])
    assert len(set(folders)) == 6
    assert all("/" not in name and name not in (".", "..") and name.isprintable() for name in folders)


@pytest.mark.parametrize("to", ["links", "list", "copies"])
def test_images_that_are_elsewhere_are_told_to_be(store, web_folder, tmp_path, to):
    """Not that they lie in archives: nothing is known but that they are not there."""
    away = web_folder.with_name("moved away")
    web_folder.rename(away)
    try:
        with pytest.raises(InputError, match="are not where they were embedded from"):
            export(store, tmp_path / "out", to=to)
    finally:
        away.rename(web_folder)
    assert not (tmp_path / "out").exists()
