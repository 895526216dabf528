"""Methods that keep something of each sample go on after a stop as if there had been none."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from blobs import RECIPE, loader_of, make_store

from cleanctl.config import TrainConfig
from cleanctl.errors import InterruptedRun
from cleanctl.registry import METHODS
from cleanctl.store import Store
from cleanctl.train import open_run, train

pytestmark = pytest.mark.usefixtures("one_thread")
WITH_STATE: dict[str, tuple[str, ...]] = {
    "elr": (),
    "small-loss": ("noise_ratio=0.25", "warmup=2"),
    "gmm": (),
    "co-training": (),
    "dividemix": ("rampup=2",),
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    folder = tmp_path_factory.mktemp("methods")
    (folder / "tiny.toml").write_text(RECIPE)
    return make_store(folder / "s.zarr", failed=(7,))


@pytest.mark.parametrize("method", sorted(WITH_STATE))
def test_a_stopped_run_ends_with_the_same_network(store: Store, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(name: str) -> Path:
        config = TrainConfig(
            recipe=str(store.path.with_name("tiny.toml")),
            method=method,
            settings=WITH_STATE[method],
            selection="clean",
            device="cpu",
            name=f"{method}-{name}",
        )
        return Path(train(store, config, loader_factory=loader_of).folder)

    whole = run("whole")
    kind, steps = METHODS.load(method), []
    original = kind.step

    def stop_in_the_second_epoch(self: Any, batch: Any) -> torch.Tensor:
        steps.append(batch.epochs_done)
        if len(steps) == 13:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, batch)

    monkeypatch.setattr(kind, "step", stop_in_the_second_epoch)
    with pytest.raises(InterruptedRun, match="epoch 2 of 3"):
        run("stopped")
    stopped = run("stopped")
    assert steps == sorted(set(steps)), "a step was repeated or left out"
    first, second = (torch.load(folder / "last.pt", weights_only=True)["state_dict"] for folder in (whole, stopped))
    for key, value in first.items():
        torch.testing.assert_close(second[key], value, rtol=1e-5, atol=1e-6)
    assert open_run(stopped, "last").method == method
