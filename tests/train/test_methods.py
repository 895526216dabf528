"""A training method is one file and one entry point; the command line, checkpoints and eval follow from it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from blobs import RECIPE

from cleanctl.config import TrainConfig
from cleanctl.errors import UsageError
from cleanctl.registry import METHODS
from cleanctl.train.recipe import load_recipe, with_overrides

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, web_folder: Path) -> Path:
    """A store, a recipe, and an installed package that brings the toy method."""
    from cleanctl import api
    from cleanctl.config import EmbedConfig

    folder = tmp_path_factory.mktemp("toy")
    embed = EmbedConfig(
        source=web_folder, model=f"local-dir:{tiny_model}", prompts="photo", loader="torch", workers=0, device="cpu"
    )
    api.embed(embed, store=folder / "cleanctl.zarr")
    (folder / "tiny.toml").write_text(RECIPE)
    shutil.copy(Path(__file__).with_name("toy_method.py"), folder)
    installed = folder / "toy-0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: toy\nVersion: 0\n")
    (installed / "entry_points.txt").write_text("[cleanctl.methods]\ntoy = toy_method:Toy\n")
    return folder


def command(folder: Path, *words: str) -> subprocess.Popen[str]:
    path = os.pathsep.join([str(folder), str(ROOT), str(ROOT / "kernels")])
    environment = {**os.environ, "PYTHONPATH": path, "CLEANCTL_STORE": str(folder / "cleanctl.zarr")}
    line = [sys.executable, "-m", "cleanctl", *words, "--json"]
    return subprocess.Popen(
        line, env=environment, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def done(folder: Path, *words: str, code: int = 0) -> tuple[str, str]:
    process = command(folder, *words)
    out, err = process.communicate(timeout=240)
    assert process.returncode == code, err
    return out, err


LOADER = ("--loader", "torch", "--workers", "0")
TRAIN = ("train", "--method", "toy", "--selection", "all", "--recipe", "tiny.toml", *LOADER)


def test_a_method_of_another_package_trains_resumes_and_is_evaluated(folder: Path) -> None:
    whole = json.loads(done(folder, *TRAIN, "--name", "whole")[0])
    assert (whole["method"], whole["epochs"], whole["test_split"]) == ("toy", 3, "test")
    stopped = command(folder, *TRAIN, "--name", "stopped")
    metrics = folder / "cleanctl.runs" / "stopped" / "metrics.jsonl"
    while stopped.poll() is None and not (metrics.exists() and metrics.read_text()):
        time.sleep(0.02)
    stopped.send_signal(signal.SIGTERM)
    stopped.communicate(timeout=240)
    again = json.loads(done(folder, *TRAIN, "--name", "stopped")[0])
    assert again["last_top1"] == whole["last_top1"]
    first, second = (
        torch.load(folder / "cleanctl.runs" / name / "last.pt", weights_only=True)["state_dict"]
        for name in ("whole", "stopped")
    )
    assert all(torch.equal(second[key], value) for key, value in first.items())
    assert {key.split(".")[1] for key in first} == {"0", "1"}, "both networks are kept"
    report = json.loads(done(folder, "eval", "--run", "whole", *LOADER)[0])
    last = next(run for run in report["runs"] if run["checkpoint"] == "last")
    assert last["accuracy"]["top1"] == pytest.approx(whole["last_top1"])


def test_a_method_that_nobody_brings_is_refused_with_a_near_name(folder: Path) -> None:
    _, err = done(folder, "train", "--method", "toyy", code=2)
    assert "did you mean 'toy'" in " ".join(err.split())
    assert "mixfix, cross-entropy, toy" in " ".join(err.split())


@pytest.mark.parametrize("option", ["theta_absorb", "theta_relabel"])
def test_an_option_of_mixfix_is_refused_by_cross_entropy(option: str) -> None:
    with pytest.raises(UsageError, match=f"--{option.replace('_', '-')} was given with --method cross-entropy"):
        with_overrides(load_recipe("cifar10"), TrainConfig(method="cross-entropy", **{option: 0.1}))


def test_every_method_of_the_registry_loads_and_says_what_it_obeys() -> None:
    assert METHODS.load("mixfix").options == {"theta_absorb", "theta_relabel", "absorb", "relabel", "relabel_scope"}
    assert METHODS.load("cross-entropy").fixed["sampler"] == "shuffled"
