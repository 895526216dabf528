"""`cleanctl reproduce`: published beside measured, what is missing, a second call that goes on."""

from __future__ import annotations

import csv
import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cleanctl import api
from cleanctl.cli import app
from cleanctl.config import ReproduceConfig
from cleanctl.reproduce.cells import Verbs, Workshop
from cleanctl.reproduce.figures import draw_sweep
from cleanctl.results import Cell, Measured
from cleanctl.store import Store

SMALL = ("--scale", "small", "--device", "cpu", "--workers", "0")


def run(*words, code=0):
    result = CliRunner().invoke(app, ["reproduce", *map(str, words)])
    assert result.exit_code == code, (result.output, result.stderr, result.exception)
    assert "Traceback" not in result.stderr
    return result.stdout


def run_json(*words, code=0):
    report = json.loads(run(*words, "--json", code=code))
    return report, {f"{cell['row']}/{cell['column']}": cell for cell in report["cells"]}


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch, empty_caches):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")


def test_without_data_a_table_shows_what_is_published_and_says_what_is_missing(tmp_path):
    report, cells = run_json("T4")
    assert (cells["ours/cifar10-sym90"]["published"], cells["ours/cifar10-sym90"]["spread"]) == (0.9423, 0.0054)
    assert "co-teaching+/cifar10-asym40" not in cells
    assert {cell["state"] for cell in cells.values()} == {"missing", "not-run"}
    reason = cells["ours/cifar10-sym90"]["reason"]
    assert "the dataset cifar10: no --data was given" in reason
    assert "the weights of ViT-B-32-quickgelu (openai): no --models was given" in reason
    assert cells["tcl/cifar100-sym20"]["reason"] == "another paper's number"
    assert any("78.20" in note for note in report["notes"])
    assert not list(tmp_path.glob("cleanctl-reproduce*"))


def test_the_table_for_people_fits_eighty_columns():
    stdout = run("T6")
    tables, _, _ = stdout.partition("Missing:")
    assert "81.56 ±0.29" in tables
    assert max(map(len, tables.splitlines()[1:])) <= 80
    assert "Not run here" in stdout


def test_each_thing_that_a_row_lacks_is_named_with_the_place_looked_at(cifar, tmp_path):
    (tmp_path / "weights").mkdir()
    words = ("--data", cifar, "--models", "weights", "--dry-run")
    _, cells = run_json("T5", *words, "--rows", "ours")
    reason = cells["ours/clothing1m"]["reason"]
    assert f"there is no folder {cifar}/clothing1m" in reason
    assert "weights holds no ViT-B-32-quickgelu.safetensors" in reason
    assert "ImageNet weights of resnet50: weights holds no resnet50.safetensors" in reason


@pytest.fixture(scope="module")
def small(cifar, model_dir):
    return ("--data", cifar, "--model", f"local-dir:{model_dir}", *SMALL)


def test_a_dry_run_says_what_would_run_and_runs_nothing(small, tmp_path):
    _, cells = run_json("T4", *small, "--dry-run", "--rows", "ours/cifar10-*", "--rows", "tcl")
    assert {name: cell["state"] for name, cell in cells.items() if name.startswith("ours")} == {
        f"ours/cifar10-{noise}": "ready" for noise in ("sym20", "sym50", "sym80", "sym90", "asym40")
    }
    assert len(cells) == 5 + 9
    assert not list(tmp_path.glob("cleanctl-reproduce*"))


def test_a_row_is_measured_by_seed_and_a_second_call_trains_nothing(small, tmp_path):
    words = ("T4", *small, "--rows", "ours/cifar10-sym20", "--rows", "tcl/cifar10-sym20", "--seeds", "2")
    report, cells = run_json(*words)
    measured = cells["ours/cifar10-sym20"]["measured"]
    assert measured["seeds"] == [3047, 3048]
    assert len(measured["last"]) == len(measured["best"]) == 2
    assert measured["last_mean"] == pytest.approx(sum(measured["last"]) / 2)
    assert measured["last_deviation"] is not None
    assert measured["best_on_test"] is True
    assert all(best >= last for best, last in zip(measured["best"], measured["last"]))
    assert cells["tcl/cifar10-sym20"]["state"] == "not-run"
    assert any("mean nothing" in note for note in report["notes"])
    assert any("not the published one" in note for note in report["notes"])
    weights = sorted(tmp_path.rglob("last.pt"))
    assert len(weights) == 2
    before = [path.stat().st_mtime_ns for path in weights]
    shown = run(*words)
    assert [path.stat().st_mtime_ns for path in weights] == before
    assert f"{100 * measured['last_mean']:.2f} ±{100 * measured['last_deviation']:.2f}" in shown
    assert "* best chosen on the test set" in shown


def test_images_are_embedded_once_for_all_labels_of_a_dataset(cifar, model_dir, tmp_path, recorder):
    """The second store has the first's embeddings, its own labels, and scores of these labels."""
    embedded = []

    def embed(config, **rest):
        embedded.append(api.embed(config, **rest))
        return embedded[-1]

    config = ReproduceConfig(
        table="T4", data=cifar, model=f"local-dir:{model_dir}", scale="small", device="cpu", workers=0, out=tmp_path
    )
    verbs = Verbs(embed, api.select, api.train, api.evaluate, api.adapt)
    shop = Workshop(config, verbs, recorder)
    first, second = (shop.store(f"cifar10-sym{rate}", None) for rate in (20, 50))
    alone = Workshop(replace(config, out=tmp_path / "alone"), verbs, recorder).store("cifar10-sym50", None)
    assert [sum(split.embedded for split in one.splits) for one in embedded] == [120, 0, 120]
    made, expected = Store.open(second).split("train"), Store.open(alone).split("train")
    assert made.keys() == expected.keys()
    assert made.label_N().tolist() == expected.label_N().tolist() != Store.open(first).split("train").label_N().tolist()
    assert (made.truth_N() == expected.truth_N()).all()
    assert any("embedded already" in note for note in recorder.notes)


def test_a_figure_is_drawn_of_what_can_be_measured_and_one_failure_leaves_the_rest(small, tmp_path):
    """The store of a setting is damaged: its values fail, the others are measured; the call ends with 3."""
    pytest.importorskip("matplotlib")
    words = ("figure4", *small, "--rows", "vit-b-32-zeroshot-loss")
    scaled_too = ("--rows", "vit-b-32-zeroshot-loss-scaled/cifar10-*")
    report, cells = run_json(*words, *scaled_too)
    assert {cell["state"] for cell in cells.values()} == {"measured"}
    auc, scaled = (
        cells[f"vit-b-32-zeroshot-{rule}/cifar10-sym50"]["measured"]["last"] for rule in ("loss", "loss-scaled")
    )
    assert auc != scaled
    assert [Path(path).name for path in report["files"]] == ["figure4.csv", "figure4.png", "figure4.svg"]
    first = rows_of(report)[0]
    assert list(first.values())[:4] == ["cifar10-sym50", "ViT-B/32", "zeroshot", "loss"]
    assert float(first["last"]) == auc[0]
    assert Path(report["files"][1]).read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert "</svg>" in Path(report["files"][2]).read_text()
    (broken,) = tmp_path.glob("cleanctl-reproduce/small/cifar100-sym50-*/cleanctl.zarr")
    (broken / "zarr.json").write_text("{")
    report, cells = run_json(*words, code=3)
    states = {cell["column"]: cell["state"] for cell in cells.values()}
    assert states == {"cifar10-sym50": "measured", "cifar100-sym50": "failed"}
    assert "cleanctl.zarr" in cells["vit-b-32-zeroshot-loss/cifar100-sym50"]["reason"]
    assert {row["last"] for row in rows_of(report) if row["state"] == "failed"} == {""}


def rows_of(report):
    with open(report["files"][0], newline="") as file:
        return list(csv.DictReader(file))


def test_the_sweep_is_drawn_with_what_is_missing_left_blank(tmp_path):
    pytest.importorskip("matplotlib")
    common = {"column": "c", "column_title": "C", "measure": "top1", "split": "test", "spread": None, "row_title": ""}
    measured = Measured(seeds=(1, 2), last=(0.5, 0.6), best=(0.6, 0.7), best_on_test=True)
    cells = (
        Cell(row="r0.7-rr0.8", published=0.7663, state="measured", measured=measured, **common),
        Cell(row="r0.9-rr0.9", published=0.7578, state="missing", reason="data", **common),
    )
    files = draw_sweep(cells, tmp_path)
    rows = rows_of({"files": files})
    assert [path.name for path in files] == ["figure3.csv", "figure3.png", "figure3.svg"]
    assert [row["last"] for row in rows] == ["0.55", ""]
    assert [(row["theta_r"], row["theta_r_prime"]) for row in rows] == [("0.7", "0.8"), ("0.9", "0.9")]
    assert float(rows[0]["last_deviation"]) == pytest.approx(0.0707, abs=1e-4)
    assert "</svg>" in files[2].read_text()


def test_a_figure_without_matplotlib_names_the_extra(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "matplotlib" else find(name))
    result = CliRunner().invoke(app, ["reproduce", "figure4"])
    assert result.exit_code == 5
    assert "[figures]" in " ".join(result.stderr.split())


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "TABLE is missing. Give one of: T1,"),
        (["T9"], "TABLE is 'T9'. Give one of: T1,"),
        (["T4", "--rows", "theirs"], "--rows is 'theirs', which no row of T4 is. Its rows are: ce, co-teaching+,"),
        (["T4", "--pretrained", "openai"], "--pretrained was given without --model."),
        (["T4", "--seeds", "0"], "--seeds is 0."),
    ],
)
def test_mistakes_are_told(words, told, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    result = CliRunner().invoke(app, ["reproduce", *words])
    assert result.exit_code == 2
    assert told in " ".join(result.stderr.split())


@pytest.mark.slow
@pytest.mark.timeout(7200)  # a sweep of 36 trainings in T1
@pytest.mark.parametrize("table", ["T1", "T2", "T3", "T4", "T5", "T6", "T7", "T8", "DeFT", "figure3", "figure4"])
def test_every_row_runs_on_small_copies(table, published, model_dir, everything):
    """Each value that cleanctl can measure is measured; what a second table shares with a first is not run again."""
    _, cells = run_json(table, "--data", published, "--model", f"local-dir:{model_dir}", *SMALL, "--out", everything)
    told = {name: cell["reason"] for name, cell in cells.items() if cell["state"] not in ("measured", "not-run")}
    assert told == {}
    assert all(cell["reason"] for cell in cells.values() if cell["state"] == "not-run")
    assert any(cell["state"] == "measured" for cell in cells.values())


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    return tmp_path_factory.mktemp("everything")
