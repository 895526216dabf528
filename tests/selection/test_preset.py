"""`select --preset`: a recipe's thresholds reach the stored selection, and its name reaches `train`."""

from __future__ import annotations

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from cleanctl import api
from cleanctl.cli import app
from cleanctl.config import ImportConfig, SelectConfig, TrainConfig
from cleanctl.errors import InputError, StoreError, UsageError
from cleanctl.store import Store

STRICT = """
summary = "mine"
network = "fastconv-w4"
image_size = 16
load_size = 16
epochs = 1
batch_size = 16
learning_rate = 0.05
weight_decay = 0.0
mixup_beta = 0.0
theta_absorb = 0.5
theta_relabel = 0.5
[selection]
theta_consistency = 1.0
"""


@pytest.fixture
def store(tmp_path):
    """Ninety rows of three classes, each about as much like the next class."""
    rng = np.random.default_rng(0)
    label = np.arange(90) % 3
    image = np.eye(3, 8)[label] + rng.uniform(0.95, 1.02, (90, 1)) * np.eye(3, 8)[(label + 1) % 3]
    np.save(tmp_path / "x.npy", image.astype(np.float32))
    np.save(tmp_path / "y.npy", label)
    np.save(tmp_path / "t.npy", np.eye(3, 8, dtype=np.float32))
    np.save(tmp_path / "c.npy", np.arange(3))
    arrays = {"image_embeddings": "x", "labels": "y", "text_embeddings": "t", "text_classes": "c"}
    config = ImportConfig(**{option: tmp_path / f"{name}.npy" for option, name in arrays.items()})
    api.import_arrays(config, store=tmp_path / "s.zarr")
    return tmp_path / "s.zarr"


def test_a_presets_thresholds_select_and_are_stored_with_its_name(store):
    arguments = ["select", "--strategy", "zeroshot.consistency", "--device", "cpu", "--store", str(store), "--json"]
    plain = json.loads(CliRunner().invoke(app, arguments).stdout)
    preset = CliRunner().invoke(app, [*arguments, "--preset", "webvision"])
    strict = json.loads(preset.stdout)
    assert "Preset webvision: theta_gmm 0.5, theta_consistency 1.0, temperature 0.07." in " ".join(
        preset.stderr.split()
    )
    assert strict["kept"] < plain["kept"]
    stored = Store.open(store).split("train").read_result("selections", "zeroshot.consistency").attributes["config"]
    assert stored == strict["parameters"]
    assert (stored["preset"], stored["theta_consistency"]) == ("webvision", 1.0)
    given = CliRunner().invoke(app, [*arguments, "--preset", "webvision", "--theta-consistency", "0.8"])
    assert json.loads(given.stdout)["kept"] == plain["kept"]
    assert "theta_consistency 0.8 (given; the preset's is 1.0)" in " ".join(given.stderr.split())


def test_train_takes_the_recipe_of_the_selections_preset(store, tmp_path, recorder, monkeypatch):
    (tmp_path / "mine.toml").write_text(STRICT)
    monkeypatch.chdir(tmp_path)
    config = SelectConfig(strategy="zeroshot.consistency", preset="mine.toml", device="cpu")
    assert (config.theta_gmm, config.theta_consistency) == (0.5, 1.0)
    api.select(config, store=store)
    monkeypatch.chdir("/")  # the preset's file is found from anywhere
    with pytest.raises(StoreError, match="imported from arrays"):  # the recipe was chosen before images were missed
        api.train(TrainConfig(device="cpu"), store=store, progress=recorder)
    assert "Recipe mine (the preset of selection zeroshot.consistency): mine." in recorder.notes
    with pytest.raises(StoreError, match="imported from arrays"):
        api.train(TrainConfig(device="cpu", recipe="cpu-small", name="b"), store=store, progress=recorder)
    assert any(note.startswith("Recipe cpu-small (asked for)") for note in recorder.notes)


def test_a_preset_that_is_none_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"--preset is 'webvison', neither a recipe .* webvision"):
        SelectConfig(preset="webvison")
    with pytest.raises(UsageError, match="cpu-small sets no thresholds"):
        SelectConfig(preset="cpu-small")
    (tmp_path / "odd.toml").write_text("[selection]\ntheta = 1\n")
    with pytest.raises(InputError, match=r"has the key theta. Use: theta_gmm"):
        SelectConfig(preset=str(tmp_path / "odd.toml"))
    (tmp_path / "far.toml").write_text("[selection]\ntheta_gmm = 7\n")
    with pytest.raises(UsageError, match="--theta-gmm is 7"):
        SelectConfig(preset=str(tmp_path / "far.toml"))
