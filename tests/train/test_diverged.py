"""Numbers that are none: a run ends at the first, says where, and leaves no broken network behind."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from blobs import RECIPE, loader_of, make_store

from cleanctl.config import TrainConfig
from cleanctl.errors import InputError
from cleanctl.store import Store
from cleanctl.train import engine, train
from cleanctl.train.methods.cross_entropy import CrossEntropy
from cleanctl.train.methods.method import NOT_A_NUMBER, UNREAD, View

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return make_store(tmp_path_factory.mktemp("diverged") / "s.zarr")


def run(store: Store, **options: object) -> None:
    recipe = store.path.with_name("tiny.toml")
    recipe.write_text(RECIPE)
    train(store, TrainConfig(recipe=str(recipe), device="cpu", resume=False, **options), loader_factory=loader_of)


def broken_at(monkeypatch: pytest.MonkeyPatch, step: int, value: float, part: str) -> list[np.ndarray]:
    """From that step on (10 an epoch), the loss is `value`, or a weight is after it; gives each step's positions."""
    seen: list[np.ndarray] = []
    original = CrossEntropy.step

    def step_then_break(self: CrossEntropy, batch: engine.Batch) -> torch.Tensor:
        seen.append(batch.position_B)
        loss = original(self, batch)
        if len(seen) > step and part == "weight":
            next(self.network.parameters()).data.fill_(value)
        return torch.full_like(loss, value) if len(seen) > step and part == "loss" else loss

    monkeypatch.setattr(CrossEntropy, "step", step_then_break)
    return seen


def assert_finite(folder: Path) -> None:
    """What the run left can be loaded and used."""
    for file in folder.glob("*.pt"):
        saved = torch.load(file, weights_only=True)
        weights = saved["method"]["network"] if "method" in saved else saved["state_dict"]
        assert all(value.isfinite().all() for value in weights.values()), file


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("check", [1, 4, 64])
def test_a_loss_that_is_no_number_ends_the_run_and_names_the_step(store, monkeypatch, value: float, check: int) -> None:
    monkeypatch.setattr(engine, "CHECK_STEPS", check)
    seen = broken_at(monkeypatch, 13, value, "loss")
    with pytest.raises(InputError, match=r"step 4 of epoch 2 is (nan|inf), at a learning rate of 0\.0") as raised:
        run(store)
    assert "--lr 0.005" in str(raised.value)
    folder = store.path.with_name("s.runs") / "mixfix-clean"
    told = json.loads((folder / "diverged.json").read_text())
    keys = store.split("train").keys()
    assert told["keys"] == [keys[position] for position in seen[13]]
    assert told["keys"][0] in str(raised.value)
    assert (told["epoch"], told["step"]) == (2, 4)
    assert (folder / "state.pt").exists()
    assert_finite(folder)


def test_weights_that_break_in_an_epochs_last_step_are_not_saved(store, monkeypatch) -> None:
    broken_at(monkeypatch, 9, math.inf, "weight")
    with pytest.raises(InputError, match="step 10 of epoch 1 leaves weights that are not finite"):
        run(store)
    folder = store.path.with_name("s.runs") / "mixfix-clean"
    assert not list(folder.glob("*.pt"))
    assert not (folder / "result.json").exists()


def test_a_state_kept_in_mid_epoch_is_checked_before(store, monkeypatch) -> None:
    monkeypatch.setattr(engine, "KEEP_SECONDS", 0)
    broken_at(monkeypatch, 4, math.nan, "weight")
    with pytest.raises(InputError, match="step 5 of epoch 1 leaves weights"):
        run(store)
    folder = store.path.with_name("s.runs") / "mixfix-clean"
    assert torch.load(folder / "state.pt", weights_only=True)["step"] == 4
    assert_finite(folder)


def test_a_rate_that_is_far_too_high_is_such_a_run(store) -> None:
    with pytest.raises(InputError, match="learning rate"):
        run(store, learning_rate=1000, epochs=20, method="cross-entropy")


def test_a_prediction_that_is_no_number_is_wrong_and_is_no_class() -> None:
    logit = torch.eye(4) * 9
    logit[1, 2] = math.nan
    view = View(5, lambda: iter([(np.array([0, 1, 2, 3]), logit)]))
    predicted, confidence = view.predictions(lambda image: image)
    assert predicted.tolist() == [0, NOT_A_NUMBER, 2, 3, UNREAD]
    assert (confidence >= 0).tolist() == [True, False, True, True, False]


def test_a_network_that_predicts_nothing_but_nan_has_no_image_right(store, monkeypatch) -> None:
    monkeypatch.setattr(CrossEntropy, "predict", lambda self, image: torch.full((len(image), 4), math.nan))
    recipe = store.path.with_name("tiny.toml")
    recipe.write_text(RECIPE)
    config = TrainConfig(recipe=str(recipe), device="cpu", name="nan", epochs=2)
    result = train(store, config, loader_factory=loader_of)
    assert (result.last_top1, result.members) == (0, result.selected)
