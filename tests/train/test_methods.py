"""A training method is one file and one entry point; the command line, checkpoints and eval follow from it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import commands
import pytest
import torch
from blobs import RECIPE

from cleanctl.config import EvalConfig, TrainConfig
from cleanctl.errors import InterruptedRun, UsageError
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


def command(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(folder), str(ROOT), str(ROOT / "kernels")])
    environment = {**os.environ, "PYTHONPATH": path, "CLEANCTL_STORE": str(folder / "cleanctl.zarr")}
    environment["OMP_NUM_THREADS"] = "1"  # as in this process: sums over two threads differ in the last bit
    return commands.run("-m", "cleanctl", *words, "--json", env=environment, cwd=folder)


def test_a_method_of_another_package_trains_resumes_and_is_evaluated(folder: Path, monkeypatch, one_thread) -> None:
    """By the command line once; the stop and the evaluation in this process, which has loaded torch already."""
    from cleanctl import api

    words = ("--selection", "all", "--recipe", "tiny.toml", "--loader", "torch", "--workers", "0", "--name", "whole")
    done = command(folder, "train", "--method", "toy", *words)
    assert done.returncode == 0, done.stderr
    whole = json.loads(done.stdout)
    assert (whole["method"], whole["epochs"], whole["test_split"]) == ("toy", 3, "test")

    monkeypatch.syspath_prepend(str(folder))
    options = {"method": "toy", "selection": "all", "recipe": str(folder / "tiny.toml"), "name": "stopped"}
    config = TrainConfig(loader="torch", workers=0, device="cpu", **options)
    kind, steps = METHODS.load("toy"), []
    original = kind.step

    def stop_in_the_second_epoch(self: Any, batch: Any) -> torch.Tensor:
        steps.append(batch)
        if len(steps) == 9:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, batch)

    monkeypatch.setattr(kind, "step", stop_in_the_second_epoch)
    with pytest.raises(InterruptedRun, match="epoch 2 of 3, after 2 of its 7 steps"):
        api.train(config, store=folder / "cleanctl.zarr")
    again = api.train(config, store=folder / "cleanctl.zarr")
    assert len(steps) == 3 * 7
    assert again.last_top1 == whole["last_top1"]
    first, second = (
        torch.load(folder / "cleanctl.runs" / name / "last.pt", weights_only=True)["state_dict"]
        for name in ("whole", "stopped")
    )
    for key, value in first.items():
        torch.testing.assert_close(second[key], value, rtol=1e-4, atol=1e-5)
    assert {key.split(".")[1] for key in first} == {"0", "1"}, "both networks are kept"
    report = api.evaluate(
        EvalConfig(run="whole", loader="torch", workers=0, device="cpu"), store=folder / "cleanctl.zarr"
    )
    last = next(run for run in report.runs if run.checkpoint == "last")
    assert last.accuracy.top1 == pytest.approx(whole["last_top1"])


def test_a_method_that_nobody_brings_is_refused_with_a_near_name(folder: Path) -> None:
    done = command(folder, "train", "--method", "toyy")
    assert done.returncode == 2
    told = " ".join(done.stderr.split())
    assert "did you mean 'toy'" in told
    assert "mixfix, cross-entropy, " in told
    assert ", toy." in told


@pytest.mark.parametrize("option", ["theta_absorb", "theta_relabel"])
def test_an_option_of_mixfix_is_refused_by_cross_entropy(option: str) -> None:
    with pytest.raises(UsageError, match=f"--{option.replace('_', '-')} was given with --method cross-entropy"):
        with_overrides(load_recipe("cifar10"), TrainConfig(method="cross-entropy", **{option: 0.1}))


def test_every_method_of_the_registry_loads_and_says_what_it_obeys() -> None:
    rules = {"theta_absorb", "theta_relabel", "absorb", "relabel", "relabel_scope"}
    obeyed = {name: METHODS.load(name).options for name in METHODS.built_in}
    assert obeyed["mixfix"] == obeyed["co-training"] == {"mixup_beta", *rules}
    assert obeyed["cross-entropy"] == obeyed["mixup"] == obeyed["dividemix"] == {"mixup_beta"}
    assert obeyed["sce"] == obeyed["elr"] == obeyed["small-loss"] == obeyed["gmm"] == set()
    assert METHODS.load("cross-entropy").fixed["sampler"] == "shuffled"


def test_methods_without_mixup_refuse_its_beta() -> None:
    with pytest.raises(UsageError, match="--mixup-beta was given with --method elr"):
        with_overrides(load_recipe("cifar10"), TrainConfig(method="elr", mixup_beta=1.0))
    assert with_overrides(load_recipe("cifar10"), TrainConfig(method="mixup")).mixup_beta == 1.0
