"""Training dynamics are recorded for every image and every method, survive a stop, and serve the rules of select."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from blobs import RECIPE, given, loader_of, make_store, sizes, truth

from cleanctl.api import select
from cleanctl.config import SelectConfig, TrainConfig
from cleanctl.errors import StoreError, UsageError
from cleanctl.store import Store
from cleanctl.train import train
from cleanctl.train.dynamics import after_epoch
from cleanctl.train.methods.method import View
from cleanctl.train.session import Session

pytestmark = pytest.mark.usefixtures("one_thread")
FAILED = (11,)


@pytest.fixture
def folder(tmp_path):
    make_store(tmp_path / "s.zarr", failed=FAILED)
    (tmp_path / "tiny.toml").write_text(RECIPE)
    return tmp_path


def run(folder, **options):
    config = TrainConfig(
        **{"recipe": str(folder / "tiny.toml"), "selection": "all", "device": "cpu", "method": "cross-entropy"}
        | {"record_dynamics": True}
        | options
    )
    return train(Store.open(folder / "s.zarr"), config, loader_factory=loader_of)


def stored(folder):
    return Store.open(folder / "s.zarr").split("train").read_result("scores", "dynamics")


def rows():
    return np.setdiff1d(np.arange(sizes("train")), FAILED)


def test_the_averages_are_those_of_the_epochs():
    """Three epochs of given logits, against the definitions."""
    rng = np.random.default_rng(0)
    label = rng.integers(0, 4, 50)
    epochs = rng.standard_normal((3, 50, 4)).astype(np.float32)
    sums = {}
    for logit in epochs:
        view = View(50, lambda logit=logit: iter([(np.arange(50), torch.from_numpy(logit.copy()))]))
        sums = after_epoch(sums, view, lambda image: image, label)
    own = epochs[:, np.arange(50), label]
    others = np.where(np.arange(4) == label[:, None], -np.inf, epochs).max(axis=2)
    np.testing.assert_allclose(sums["margin"] / 3, (own - others).mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(sums["square"] / 3, ((own - others) ** 2).mean(axis=0), atol=1e-5)
    log_p = own - np.log(np.exp(epochs).sum(axis=2))
    np.testing.assert_allclose(sums["log"] / 3, log_p.mean(axis=0), atol=1e-5)
    right = epochs.argmax(axis=2) == label
    np.testing.assert_array_equal(sums["forgotten"], (right[:-1] & ~right[1:]).sum(axis=0))
    np.testing.assert_allclose(sums["p_label"], np.exp(log_p[-1]), atol=1e-5)


@pytest.mark.parametrize(("method", "epochs"), [("cross-entropy", 6), ("mixfix", 2)])
def test_train_stores_a_score_of_every_readable_image_that_rules_read(folder, method, epochs):
    run(folder, method=method, selection="clean", epochs=epochs)
    score = stored(folder)
    for name in ("margin", "variance", "p_label", "log_p_label"):
        assert np.isnan(score.arrays[name][list(FAILED)]).all()
        assert np.isfinite(score.arrays[name][rows()]).all()
    assert score.attributes["ran"]["epochs"] == epochs
    assert score.attributes["method"] == method
    margin = score.arrays["margin"][rows()]
    right = (given("train") == truth("train"))[rows()]
    if epochs > 2:  # earlier the network knows nothing yet
        assert margin[right].mean() > margin[~right].mean() + 0.3
    summary = select(SelectConfig(strategy="dynamics.margin", device="cpu", fallback="none"), store=folder / "s.zarr")
    keep = Store.open(folder / "s.zarr").split("train").read_result("selections", "dynamics.margin").arrays["keep"]
    np.testing.assert_array_equal(keep[rows()].astype(bool), margin >= 0)
    assert summary.evidence == "dynamics"
    for mechanism in ("loss", "match"):
        assert select(SelectConfig(strategy=f"dynamics.{mechanism}", device="cpu"), store=folder / "s.zarr").kept > 0


def test_recording_does_not_change_the_training(folder):
    plain = run(folder, record_dynamics=False, name="plain")
    recorded = run(folder, name="recorded")
    assert (plain.last_top1, plain.members) == (recorded.last_top1, recorded.members)


def test_a_stopped_run_goes_on_with_its_sums(folder, monkeypatch):
    run(folder, name="whole")
    whole = stored(folder).arrays
    ended, real = [], Session._end_epoch

    def stop_after_the_first(session, engine):
        real(session, engine)
        ended.append(1)
        if len(ended) == 1:
            raise RuntimeError("stopped")

    monkeypatch.setattr(Session, "_end_epoch", stop_after_the_first)
    with pytest.raises(RuntimeError, match="stopped"):
        run(folder, name="halves")
    run(folder, name="halves")
    halves = stored(folder)
    assert halves.attributes["run"] == "halves"
    for name, values in whole.items():
        np.testing.assert_allclose(halves.arrays[name], values, rtol=1e-4, atol=1e-5, err_msg=name)


def test_a_run_that_went_on_without_recording_is_refused(folder, monkeypatch):
    real = Session._end_epoch

    def stop(session, engine):
        real(session, engine)
        raise RuntimeError("stopped")

    monkeypatch.setattr(Session, "_end_epoch", stop)
    with pytest.raises(RuntimeError):
        run(folder, record_dynamics=False)
    monkeypatch.setattr(Session, "_end_epoch", real)
    with pytest.raises(UsageError, match="1 epochs behind it of which no dynamics"):
        run(folder)
    run(folder, record_dynamics=False)
    with pytest.raises(UsageError, match="is finished, and the split's dynamics are not those of it"):
        run(folder)


def test_without_a_recording_the_error_says_what_to_type(folder):
    with pytest.raises(StoreError, match="cleanctl train --record-dynamics"):
        select(SelectConfig(strategy="dynamics.margin", device="cpu"), store=folder / "s.zarr")
