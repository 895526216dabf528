"""A run that is killed, stopped or asked for twice ends as one that was left alone."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import commands
import pytest
import torch
from blobs import RECIPE, loader_of, make_store

from cleanctl.config import TrainConfig
from cleanctl.errors import StoreError
from cleanctl.results import TrainResult
from cleanctl.store import Store
from cleanctl.train import train

CHILD = Path(__file__).with_name("train_child.py")


@dataclass(frozen=True)
class Place:
    """A folder with a store, a recipe and the run of a process that nothing disturbed."""

    folder: Path

    @property
    def run(self) -> Path:
        return self.folder / "s.runs" / "mixfix-clean"

    @property
    def undisturbed(self) -> Path:
        return self.folder / "whole.runs" / "mixfix-clean"

    def child(self, where: str, cache: str = "ram", recipe: str = "tiny") -> tuple[int, str]:
        """Exit code (minus the signal that ended it) and stderr of a process that trains in this folder."""
        words = (self.folder / "s.zarr", self.folder / f"{recipe}.toml", where, cache)
        done = commands.run(CHILD, *words, env={**os.environ, "OMP_NUM_THREADS": "1"})
        return done.returncode, done.stderr

    def train(self, **options: Any) -> TrainResult:
        config = TrainConfig(recipe=str(self.folder / "tiny.toml"), selection="clean", device="cpu", **options)
        return train(Store.open(self.folder / "s.zarr"), config, loader_factory=loader_of)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Place:
    folder = tmp_path_factory.mktemp("resume")
    make_store(folder / "s.zarr")
    (folder / "tiny.toml").write_text(RECIPE)
    place = Place(folder)
    assert place.child("never") == (0, "")
    (folder / "s.runs").rename(folder / "whole.runs")
    return place


@pytest.fixture
def place(made: Place) -> Place:
    """No run yet."""
    shutil.rmtree(made.folder / "s.runs", ignore_errors=True)
    return made


@pytest.fixture
def finished(place: Place) -> Place:
    shutil.copytree(place.undisturbed, place.run)
    return place


def assert_same_run(place: Place) -> None:
    whole, killed = place.undisturbed, place.run
    for file in ("last.pt", "best.pt"):
        ours = torch.load(killed / file, weights_only=True)
        theirs = torch.load(whole / file, weights_only=True)
        assert ours["meta"] == theirs["meta"]
        for key, value in theirs["state_dict"].items():
            assert torch.equal(ours["state_dict"][key], value), f"{file}: {key} differs"
    lines = [json.loads(line) for line in (killed / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2, 3]
    for ours, theirs in zip(lines, (whole / "metrics.jsonl").read_text().splitlines()):
        timing = ("seconds", "images_per_second")
        expected = {key: value for key, value in json.loads(theirs).items() if key not in timing}
        assert {key: value for key, value in ours.items() if key not in timing} == expected
    assert not list(killed.glob(".*.partial"))
    assert not (killed / "state.pt").exists()


@pytest.mark.parametrize("where", ["0:3:SIGKILL", "1:6:SIGKILL", "2:0:SIGKILL", "before-metrics"])
def test_kill_9_then_the_same_command_gives_the_same_run(place: Place, where: str) -> None:
    assert place.child(where)[0] == -9
    assert place.child("never") == (0, "")
    assert_same_run(place)


@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM"])
def test_a_stop_signal_finishes_the_step_and_says_what_remains(place: Place, number: str) -> None:
    code, said = place.child(f"1:4:{number}")
    assert code == 130
    assert "Stopped in epoch 2 of 3, after 5 of its 10 steps." in said
    assert "1 more epochs remain" in said
    state = torch.load(place.run / "state.pt", weights_only=True)
    assert (state["epoch"], state["step"]) == (1, 5)
    assert place.child("never") == (0, "")
    assert_same_run(place)


def test_a_streamed_set_stops_and_goes_on_like_a_held_one(place: Place) -> None:
    assert place.child("1:4:SIGTERM", cache="none")[0] == 130
    assert place.child("never", cache="none") == (0, "")
    assert_same_run(place)


def test_random_crops_of_the_loader_go_on_where_they_stopped(place: Place) -> None:
    (place.folder / "crops.toml").write_text(RECIPE.replace('crop = "pad"\npad = 2', 'crop = "random-resized"'))
    assert place.child("never", recipe="crops") == (0, "")
    whole = torch.load(place.run / "last.pt", weights_only=True)["state_dict"]
    shutil.rmtree(place.run)
    assert place.child("1:4:SIGTERM", recipe="crops")[0] == 130
    assert place.child("never", recipe="crops") == (0, "")
    again = torch.load(place.run / "last.pt", weights_only=True)["state_dict"]
    assert all(torch.equal(again[key], value) for key, value in whole.items())
    uncropped = torch.load(place.undisturbed / "last.pt", weights_only=True)["state_dict"]
    assert not all(torch.equal(uncropped[key], value) for key, value in whole.items())


def test_a_finished_run_is_shown_and_not_trained_again(finished: Place) -> None:
    before = (finished.run / "last.pt").stat().st_mtime_ns
    assert finished.train().epochs == 3
    assert (finished.run / "last.pt").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"epochs": 5}, "epochs was 3, now 5"),
        ({"seed": 1}, "seed was 3047, now 1"),
        ({"theta_relabel": 0.9}, "theta_relabel was 0.5, now 0.9"),
    ],
)
def test_another_experiment_under_the_same_name_is_refused(finished: Place, change: dict[str, Any], said: str) -> None:
    with pytest.raises(StoreError, match=said) as raised:
        finished.train(**change)
    assert "--name" in str(raised.value)
    assert "--no-resume" in str(raised.value)
    assert (finished.run / "last.pt").exists()


def test_no_resume_starts_over(finished: Place) -> None:
    assert finished.train(epochs=1, resume=False).epochs == 1
    assert len((finished.run / "metrics.jsonl").read_text().splitlines()) == 1


def test_a_second_trainer_of_the_same_run_is_refused(place: Place) -> None:
    from cleanctl.store.locks import writer_lock

    with writer_lock(place.run):
        code, said = place.child("never")
    assert code == 4
    assert "another process" in said
