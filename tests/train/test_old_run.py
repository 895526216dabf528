"""A run that the version before recipes had settings, optimisers and thresholds left is still a run of this one.

old_run/ holds the JSON files of such a run, written by that version's own code over the store of blobs.py.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from blobs import RECIPE, loader_of, make_store

from cleanctl.config import TrainConfig
from cleanctl.errors import StoreError
from cleanctl.train import open_run, train
from cleanctl.train.methods.mixfix import MixFix
from cleanctl.train.recipe import parse_recipe
from cleanctl.train.rundir import write_tensors

OLD = Path(__file__).with_name("old_run")
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def store(tmp_path):
    made = make_store(tmp_path / "s.zarr")
    shutil.copytree(OLD, tmp_path / "s.runs" / "old")
    (tmp_path / "tiny.toml").write_text(RECIPE)
    return made


def asked(tmp_path: Path, **more) -> TrainConfig:
    return TrainConfig(
        recipe=str(tmp_path / "tiny.toml"), selection="clean", name="old", device="cpu", loader="torch", **more
    )


def test_its_result_is_shown_by_the_command_that_made_it(store, tmp_path):
    result = train(store, asked(tmp_path), loader_factory=loader_of)
    assert (result.name, result.epochs, result.members, result.seed) == ("old", 3, 160, None)


def test_another_setting_is_refused_as_ever(store, tmp_path):
    with pytest.raises(StoreError, match=r"seed was 3047, now 4"):
        train(store, asked(tmp_path, seed=4), loader_factory=loader_of)


def test_its_network_is_opened_with_the_recipe_that_it_wrote(store, tmp_path):
    recipe = parse_recipe(RECIPE, "tiny")
    meta = {"network": recipe.network, "classes": ["north", "east", "south", "west"], "epoch": 3}
    weights = MixFix.build(recipe, 4).state_dict()
    write_tensors(tmp_path / "s.runs" / "old" / "last.pt", {"state_dict": weights, "meta": meta})
    run = open_run(tmp_path / "s.runs" / "old", "last")
    assert (run.method, run.selection, run.recipe.epochs) == ("mixfix", "clean", 3)
    assert all(torch.equal(value, weights[key]) for key, value in run.network.state_dict().items())
