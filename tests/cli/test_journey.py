"""embed, select, train, eval one after another, each finding what the last one left; output, exit codes, files."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys

import commands
import pytest
from typer.testing import CliRunner

from cleanctl.cli import app

SMALL_RUN = ("--recipe", "cpu-small", "--epochs", "1", "--image-size", "32")


def run(*arguments, code=0):
    """(stdout, stderr) of a verb; the exit code is checked."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, (result.output, result.stderr, result.exception)
    return result.stdout, result.stderr


def run_json(*arguments, code=0):
    stdout, _ = run(*arguments, "--json", code=code)
    return json.loads(stdout)


@pytest.fixture(scope="module")
def embedded(tmp_path_factory, tiny_model, web_folder):
    """A folder with a store, made by the command line."""
    folder = tmp_path_factory.mktemp("work")
    model = f"local-dir:{tiny_model}"
    embed = ("embed", web_folder, "--model", model, "--prompts", "photo", "--loader", "torch", "--workers", "0")
    record = run_json(*embed, "--store", folder / "cleanctl.zarr")
    assert {split["split"]: split["ok"] for split in record["splits"]} == {"train": 120, "test": 24}
    return folder


@pytest.fixture
def work(embedded, tmp_path, monkeypatch):
    """A copy of that folder as the current one."""
    shutil.copytree(embedded, tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.delenv("CLEANCTL_STORE", raising=False)
    return tmp_path / "work"


def test_four_commands_with_no_more_words(work):
    selected = run_json("select", "--out", "selection.csv")
    assert 0 < selected["kept"] < 120
    with open("selection.csv") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0])[:8] == [
        "key",
        "label",
        "label_name",
        "keep",
        "suggested_label",
        "suggested_name",
        "p_label",
        "p_max",
    ]
    assert len(rows) == 120
    assert sum(row["keep"] == "true" for row in rows) == selected["kept"]
    assert {"zeroshot.loss.score", "logistic.consistency.keep"} <= set(rows[0])
    trained = run_json("train", *SMALL_RUN)
    assert (work / "cleanctl.runs" / trained["name"] / "last.pt").exists()
    numbers = run_json("eval")
    assert numbers


def test_tables_for_people_fit_eighty_columns(work, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    for verb in (["select"], ["train", *SMALL_RUN], ["eval"]):
        stdout, _ = run(*verb)
        assert stdout.strip()
        assert max(len(line) for line in stdout.splitlines()) <= 80, stdout


def test_json_is_alone_on_stdout_and_quiet_is_quiet(work):
    stdout, stderr = run("select", "--json")
    assert json.loads(stdout)["name"] == "intersection"
    assert "Traceback" not in stderr
    assert run("select", "--quiet") == ("", "")


def test_a_second_embed_embeds_nothing(work, tiny_model, web_folder):
    record = run_json(
        "embed", web_folder, "--model", f"local-dir:{tiny_model}", "--prompts", "photo", "--loader", "torch"
    )
    assert [split["embedded"] for split in record["splits"]] == [0, 0]
    assert sum(split["unchanged"] for split in record["splits"]) == 144


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["select", "--store", "none.zarr"], 4, ["no store at none.zarr", "cleanctl embed"]),
        (["train"], 4, ["no selection", "cleanctl select"]),
        (["select", "--strategy", "zeroshot.loss & logistic.los"], 2, ["logistic.los"]),
        (["select", "--theta-gmm", "1.5"], 2, ["--theta-gmm is 1.5", "from 0 to 1"]),
        (["select", "--split", "holdout"], 4, ["no split 'holdout'", "test, train"]),
        (["embed", "nowhere/"], 3, ["nowhere"]),
        (["embed", ".", "--device", "tpu"], 2, ["--device is 'tpu'"]),
        (["train", "--method", "mixmatch"], 2, ["mixfix"]),
        (["select", "--no-such-option"], 2, ["--no-such-option"]),
    ],
)
def test_a_mistake_gets_one_clear_error_and_its_exit_code(work, arguments, code, words):
    stdout, stderr = run(*arguments, code=code)
    text = " ".join(stderr.split())
    for word in words:
        assert word in text
    assert "Traceback" not in stderr
    assert stdout == ""


def test_errors_are_json_too(work):
    record = run_json("select", "--store", "none.zarr", code=4)
    assert record["error"]["exit_code"] == 4
    assert "cleanctl embed" in record["error"]["do"]


def test_another_model_is_refused_and_the_store_kept(work, tiny_model, tmp_path, web_folder):
    other = tmp_path / "other"
    shutil.copytree(tiny_model, other)
    import torch
    from safetensors.torch import load_file, save_file

    weights = load_file(other / "open_clip_model.safetensors")
    save_file(
        {key: value + 0.01 * torch.ones_like(value) for key, value in weights.items()},
        other / "open_clip_model.safetensors",
    )
    before = run_json("select")["kept"]
    _, stderr = run("embed", web_folder, "--model", f"local-dir:{other}", "--prompts", "photo", code=4)
    assert "--replace" in stderr
    assert run_json("select")["kept"] == before


def test_unreadable_images_are_reported_and_never_kept(tmp_path, tiny_model, web_folder, monkeypatch):
    images = tmp_path / "images"
    shutil.copytree(web_folder, images)
    broken = images / "train" / "cat" / "cat-000.jpg"
    broken = broken if broken.exists() else next((images / "train" / "cat").iterdir())
    broken.write_bytes(b"this is no picture")
    monkeypatch.chdir(tmp_path)
    model = ("--model", f"local-dir:{tiny_model}", "--prompts", "photo", "--loader", "torch", "--workers", "0")
    record = run_json("embed", images, *model)
    train = next(split for split in record["splits"] if split["split"] == "train")
    assert (train["ok"], train["failed"]) == (119, 1)
    assert train["failures"][0][0].endswith(broken.name)
    run("select", "--out", "table.csv", "--quiet")
    with open("table.csv") as file:
        row = next(row for row in csv.DictReader(file) if row["key"].endswith(broken.name))
    assert row["keep"] == "false"
    assert row["zeroshot.loss.score"] == ""


def test_a_locked_store_is_refused(work, tiny_model, web_folder):
    from cleanctl.store import Store

    with Store.open(work / "cleanctl.zarr").lock():
        model = ("--model", f"local-dir:{tiny_model}", "--prompts", "photo", "--loader", "torch")
        done = commands.run("-m", "cleanctl", "embed", web_folder, *model, cwd=work)
    assert done.returncode == 4, done.stderr
    assert f"pid {os.getpid()}" in " ".join(done.stderr.split())


@pytest.mark.slow
def test_two_processes_of_torchrun_train_one_run_and_print_one_result(work):
    run("select", "--strategy", "zeroshot.match")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    train = ["-m", "cleanctl", "train", *SMALL_RUN, "--loader", "torch", "--workers", "0", "--device", "cpu", "--json"]
    done = subprocess.run([*torchrun, *train], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    result = json.loads(done.stdout)
    assert len(done.stdout.splitlines()) == 1
    assert " ".join(done.stderr.split()).count("each batch shared by 2 processes") == 1
    assert (work / "cleanctl.runs" / result["name"] / "best.pt").exists()
    assert {run["checkpoint"] for run in run_json("eval", "--loader", "torch", "--workers", "0")["runs"]} == {
        "best", "last"
    }  # fmt: skip
