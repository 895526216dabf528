"""`status` reads what the verbs left, says what is stale and why, and names commands that work as they stand."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys

import numpy as np
import pytest
from typer.testing import CliRunner

from cleanctl import api
from cleanctl.cli import app
from cleanctl.config import EmbedConfig, ImportConfig, SelectConfig, TrainConfig
from cleanctl.errors import InterruptedRun

RECIPE = """
summary = "Two epochs on 16 pixels"
network = "fastconv-w4"
image_size = 16
load_size = 16
epochs = 2
batch_size = 8
learning_rate = 0.01
weight_decay = 0.0
mixup_beta = 0.0
theta_absorb = 0.8
theta_relabel = 0.8
"""


def typed(command: str, *more: str, code: int = 0) -> dict:
    """A command as `status` wrote it, and its JSON."""
    words = shlex.split(command)
    assert words[0] == "cleanctl"
    result = CliRunner().invoke(app, [*words[1:], *more, "--json"])
    assert result.exit_code == code, (result.stdout, result.stderr, result.exception)
    return json.loads(result.stdout)


@pytest.fixture
def imported(tmp_path, monkeypatch):
    """A store of 60 rows of arrays at the default place."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CLEANCTL_STORE", raising=False)
    rng = np.random.default_rng(0)
    label = np.arange(60) % 3
    image = np.eye(3, 8)[label] + 0.1 * rng.standard_normal((60, 8))
    for name, values in (("x", image.astype("f4")), ("y", label), ("t", np.eye(3, 8, dtype="f4")), ("c", np.arange(3))):
        np.save(f"{name}.npy", values)
    (tmp_path / "names.txt").write_text("cat\ndog\nowl\n")
    config = ImportConfig(
        image_embeddings="x.npy", labels="y.npy", classes="names.txt", text_embeddings="t.npy", text_classes="c.npy"
    )
    api.import_arrays(config)
    return tmp_path


def test_a_store_says_what_it_holds_and_what_to_type_next(imported):
    before = api.status()
    (split,) = before.splits
    assert (split.split, split.images, split.ok, split.failed, split.pending) == ("train", 60, 60, 0, 0)
    assert before.following == ("cleanctl select",)
    assert (before.classes, before.model, before.source_here) == (3, "imported embeddings of size 8", False)
    files = [path for path in (imported / "cleanctl.zarr").rglob("*") if path.is_file()]
    assert before.store_bytes == sum(path.stat().st_size for path in files)
    kept = typed(before.following[0])["kept"]
    after = api.status()
    (selection,) = after.splits[0].selections
    assert (selection.name, selection.kept, selection.count, selection.stale) == ("intersection", kept, 60, "")
    assert after.splits[0].scores
    assert after.following == (), "arrays have no images to train on"


def test_a_selection_of_other_labels_is_stale_and_the_command_makes_it_again(imported):
    api.select(SelectConfig(strategy="zeroshot.match", name="mine"))
    label = np.load("y.npy")
    label[:5] = (label[:5] + 1) % 3
    np.save("y.npy", label)
    config = ImportConfig(
        image_embeddings="x.npy", labels="y.npy", classes="names.txt", text_embeddings="t.npy", text_classes="c.npy"
    )
    api.import_arrays(config)
    report = api.status()
    assert "labels changed" in report.splits[0].selections[0].stale
    assert report.following == ("cleanctl select --strategy zeroshot.match --name mine",)
    typed(report.following[0])
    assert api.status().splits[0].selections[0].stale == ""


def test_damage_is_told_and_hides_nothing_else(imported):
    api.select(SelectConfig(strategy="zeroshot.match"))
    (imported / "cleanctl.zarr" / "train" / "status" / "zarr.json").write_text("{")
    report = api.status()
    assert report.splits == ()
    assert "status" in report.damaged[0]
    assert report.classes == 3


def test_a_store_that_is_not_there_is_an_error_with_the_first_command(tmp_path):
    found = typed(f"cleanctl status --store {tmp_path / 'none.zarr'}", code=4)["error"]
    assert "There is no store" in found["found"]
    assert "cleanctl embed" in found["do"]


def test_a_store_that_lies_near_is_named(imported, monkeypatch):
    """Beside the place or, after `cd` into a folder, above it; the command that makes one names no default."""
    away = imported / "one" / "two"
    away.mkdir(parents=True)
    mistyped = typed(f"cleanctl status --store {imported / 'cleanctl.zar'}", code=4)["error"]
    assert "there is one at" in mistyped["found"]
    monkeypatch.chdir(away)
    told = typed("cleanctl status", code=4)["error"]
    assert told["found"] == "There is no store at cleanctl.zarr; there is one at ../../cleanctl.zarr."
    assert told["do"] == "Add --store ../../cleanctl.zarr, or make one with: cleanctl embed SOURCE"
    assert typed("cleanctl status --store ../../cleanctl.zarr")["classes"] == 3


def test_status_loads_neither_torch_nor_open_clip(imported):
    code = "import sys; from cleanctl.cli import app; app(['status', '-q'], standalone_mode=False);"
    code += "assert not {'torch', 'open_clip'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=imported)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, tiny_model, web_folder):
    """A folder with a store, a selection, a finished run and one that was stopped in its second epoch."""
    folder = tmp_path_factory.mktemp("trained")
    store = folder / "cleanctl.zarr"
    (folder / "two.toml").write_text(RECIPE)
    embed = EmbedConfig(
        source=web_folder, model=f"local-dir:{tiny_model}", prompts="photo", loader="torch", workers=0, device="cpu"
    )
    api.embed(embed, store=store)
    api.select(SelectConfig(strategy="~zeroshot.match | zeroshot.match", name="every"), store=store)
    here = os.path.relpath(folder / "two.toml")
    machine = {"loader": "torch", "workers": 0, "device": "cpu", "recipe": here}
    api.train(TrainConfig(name="whole", **machine), store=store)
    from cleanctl.train.methods.mixfix import MixFix

    original, steps = MixFix.step, []

    def stopping(self, batch):
        steps.append(batch)
        if len(steps) == 4:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, batch)

    half = TrainConfig(name="half", seed=5, relabel=False, **machine)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MixFix, "step", stopping)
        with pytest.raises(InterruptedRun):
            api.train(half, store=store)
    return folder


def test_a_stopped_run_is_gone_on_with_by_the_command_that_status_names(trained):
    report = api.status(store=trained / "cleanctl.zarr")
    assert report.source_here
    assert [(run.name, run.state) for run in report.runs] == [("whole", "finished"), ("half", "stopped")]
    assert report.runs[0].epochs_done == report.runs[0].epochs == 2
    assert report.runs[0].top1 is not None
    (command,) = report.following
    assert "--seed 5" in command
    assert "--no-relabel" in command
    assert f"--recipe {trained / 'two.toml'} " in command, "it holds in any folder"
    result = typed(command)
    assert result["name"] == "half"
    again = api.status(store=trained / "cleanctl.zarr")
    assert [run.state for run in again.runs] == ["finished", "finished"]
    assert again.following[0].startswith("cleanctl eval")
    shown = CliRunner().invoke(app, ["status", "--store", str(trained / "cleanctl.zarr")]).stdout
    assert all(word in shown for word in ("every", "whole", "half", "finished", "Next:"))


def test_a_run_of_a_selection_that_keeps_others_now_is_stale(trained):
    store = trained / "cleanctl.zarr"
    api.select(SelectConfig(strategy="zeroshot.match", name="every"), store=store)
    report = api.status(store=store)
    assert {run.stale for run in report.runs} == {"the selection 'every' was made again and keeps other samples"}
    assert report.following[0].startswith("cleanctl train")
