"""`adapt` from a store to a selection: what it finds, leaves, refuses, and does again."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from blobs import CLASSES, write_model, write_store

from cleanctl import api
from cleanctl.adapt import trainer
from cleanctl.adapt.losses import step_losses
from cleanctl.config import AdaptConfig, SelectConfig
from cleanctl.errors import InputError, StoreError, UsageError
from cleanctl.store import Store

QUICK = {"epochs": 3, "batch_size": 64}
VECTORS = {"tune": "class-vectors", "learning_rate": 0.03, **QUICK}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("clip") / "m")


@pytest.fixture
def store(tmp_path, model):
    return write_store(tmp_path / "s.zarr", model=model)


def run(store, **options):
    return api.adapt(AdaptConfig(**options), store=store.path)


def score(store, split="train"):
    return store.split(split).read_result("scores", "detector").arrays


def kept(store, strategy, split="train"):
    summary = api.select(SelectConfig(strategy=strategy, split=split, fallback="none"), store=store.path)
    return store.split(split).read_result("selections", summary.name).arrays


def test_a_detector_of_class_vectors_finds_the_right_labels_better_than_prompts_do(store):
    found = run(store, **VECTORS | {"epochs": 6}).found
    arrays = kept(store, "detector.dual | zeroshot.match")
    split = store.split("train")
    ok = split.ok_rows()
    clean = split.label_N()[ok] == split.truth_N()[ok]
    f1 = {}
    for rule in ("detector.dual", "zeroshot.match"):
        keep = arrays[f"{rule}.keep"][ok]
        f1[rule] = 2 * (keep & clean).sum() / (keep.sum() + clean.sum())
    assert f1["detector.dual"] == pytest.approx(found.f1)
    assert f1["detector.dual"] > 0.95
    assert f1["detector.dual"] >= f1["zeroshot.match"] - 0.01


def test_with_no_option_few_rows_are_learnt_in_small_batches(store):
    """Of 600 rows an epoch has two steps of 512, from which nothing would be learnt."""
    assert run(store, tune="class-vectors").found.f1 > 0.9
    config = json.loads((store.path.parent / "s.detectors" / "class-vectors" / "config.json").read_text())
    assert config["preset"]["batch_size"] == 8


def test_prompts_learn_from_the_labels_and_serve_every_rule(store):
    result = run(store, tune="prompts", context_tokens=4, warmup_epochs=2, **QUICK)
    assert result.parameters == 2 * 4 * 16
    lines = [json.loads(line) for line in (store.path.parent / "s.detectors/prompts/metrics.jsonl").open()]
    assert [line["epoch"] for line in lines] == [1, 2, 3]
    assert lines[1]["loss_similarity"] < lines[0]["loss_similarity"]  # both of warm-up: of all samples
    for line in lines:
        assert 0 <= line["batch_f1"] <= 1
        assert 0 <= line["f1"] <= 1
        assert line["seen"] == 599
    arrays = kept(store, "detector.dual & detector.match & detector.loss & detector.consistency & zeroshot.consistency")
    ok = store.split("train").ok_rows()
    found = score(store)
    assert np.array_equal(arrays["detector.dual.keep"][ok], found["p_clean"][ok] > 0.5)
    assert np.array_equal(arrays["detector.dual.posterior"][ok], found["p_clean"][ok])
    assert np.array_equal(arrays["suggested"][ok], found["suggested"][ok])
    assert np.isnan(found["p_clean"][5])
    assert not arrays["keep"][5]


def test_the_same_seed_learns_the_same_and_another_one_does_not(store):
    odds = []
    for seed in (0, 0, 1):
        run(store, **VECTORS, seed=seed, resume=False)
        odds.append(score(store)["log_odds"])
    np.testing.assert_allclose(odds[0], odds[1], rtol=1e-4, atol=1e-4)
    assert np.nanmax(np.abs(odds[0] - odds[2])) > 1e-3


def test_a_finished_run_is_shown_again_and_its_score_put_back(store):
    first = run(store, **VECTORS)
    odds = score(store)["log_odds"]
    run(store, **VECTORS, seed=5, name="other")
    again = run(store, **VECTORS)
    assert again == first
    assert store.split("train").results("scores")["detector"]["run"] == "class-vectors"
    np.testing.assert_allclose(score(store)["log_odds"], odds, rtol=1e-4, atol=1e-4)


def test_other_settings_do_not_go_on_under_the_same_name(store):
    run(store, **VECTORS)
    with pytest.raises(StoreError, match=r"started with other settings.*learning_rate"):
        run(store, **VECTORS | {"learning_rate": 0.01})
    assert run(store, **VECTORS | {"learning_rate": 0.01}, resume=False).epochs == 3


def test_a_detector_is_applied_to_another_split(store, model):
    run(store, **VECTORS)
    write_store(store.path, model=model, split="test", rows=200, seed=3)
    applied = run(store, apply="class-vectors", split="test")
    assert applied.epochs == 0
    assert applied.found.f1 > 0.9
    assert kept(store, "detector.dual", "test")["keep"].sum() == applied.kept


def test_a_detector_is_applied_to_another_store_with_its_classes_in_another_order(store, model, tmp_path):
    run(store, **VECTORS)
    applied = run(store, apply=str(tmp_path / "s.detectors" / "class-vectors"))
    turned = Store.create(tmp_path / "t.zarr", classes=CLASSES[::-1], encoder=store.encoder)
    from cleanctl.records import Fingerprints, SplitManifest

    split = store.split("train")
    ok = split.ok_rows()
    prints = split.fingerprints().at(ok)
    last = len(CLASSES) - 1
    manifest = SplitManifest(split="train", keys=[split.keys()[row] for row in ok], label_N=last - split.label_N()[ok])
    assert isinstance(prints, Fingerprints)
    with turned.write_split(manifest, dim=split.dim, fingerprints=prints) as writer:
        writer.put(np.arange(len(ok)), split.embeddings(slice(None))[ok])
        writer.finish()
    other = run(turned, apply=str(tmp_path / "s.detectors" / "class-vectors"))
    assert other.found is None
    assert other.kept == applied.kept


def test_contexts_serve_classes_that_they_never_saw_and_vectors_do_not(store, model, tmp_path):
    run(store, tune="prompts", context_tokens=4, epochs=2, batch_size=256)
    run(store, **VECTORS)
    other = write_store(tmp_path / "o.zarr", model=model, classes=("cat", "bird", "boat"), rows=90)
    folder = tmp_path / "s.detectors"
    assert run(other, apply=str(folder / "prompts")).count == 89
    with pytest.raises(StoreError, match=r"2 others, bird, boat.*--tune prompts"):
        run(other, apply=str(folder / "class-vectors"))


def test_a_detector_refuses_another_model(store, tmp_path):
    run(store, **VECTORS)
    other = write_store(tmp_path / "o.zarr", model=write_model(tmp_path / "m2", seed=9))
    with pytest.raises(StoreError, match="weights_sha256 differ"):
        run(other, apply=str(tmp_path / "s.detectors" / "class-vectors"))


def test_a_store_whose_weights_were_replaced_learns_no_prompts(tmp_path):
    folder = write_model(tmp_path / "m")
    store = write_store(tmp_path / "s.zarr", model=folder)
    fresh = write_model(tmp_path / "n", seed=4)
    with pytest.raises(StoreError, match="is not the model that made"):
        run(store, tune="prompts", model=f"local-dir:{fresh}")


def test_imported_arrays_learn_vectors_and_no_prompts(tmp_path):
    store = write_store(tmp_path / "s.zarr")
    assert run(store, **VECTORS).found.f1 > 0.9
    with pytest.raises(StoreError, match=r"imported from arrays.*class-vectors"):
        run(store, tune="prompts")


def test_a_damaged_detector_is_refused(store, tmp_path):
    run(store, **VECTORS)
    file = tmp_path / "s.detectors/class-vectors/detector.safetensors"
    data = bytearray(file.read_bytes())
    data[-3] ^= 0xFF
    file.write_bytes(data)
    with pytest.raises(InputError, match="damaged"):
        run(store, apply="class-vectors")


# ---- corner cases


def test_one_class_is_refused_with_the_reason(tmp_path):
    store = write_store(tmp_path / "s.zarr", classes=("cat",))
    with pytest.raises(InputError, match=r"one class, 'cat'.*no other label"):
        run(store, **VECTORS)


def test_an_absent_class_and_a_split_without_truth_are_no_trouble(tmp_path):
    store = write_store(tmp_path / "s.zarr", absent=2, truth=False)
    result = run(store, **VECTORS)
    assert result.found is None
    assert 0 < result.kept < result.count
    lines = [json.loads(line) for line in (tmp_path / "s.detectors/class-vectors/metrics.jsonl").open()]
    assert lines[0]["f1"] is None


def test_the_real_data_preset_also_demands_the_likeliest_class(store):
    result = run(store, **VECTORS, preset="cifar100n", warmup_epochs=1)
    found = score(store)
    ok, label = store.split("train").ok_rows(), store.split("train").label_N()
    keep = (found["p_clean"] > 0.5) & (found["clean_class"] == label)
    assert result.kept == keep[ok].sum()
    assert np.array_equal(kept(store, "detector.dual")["keep"], keep)


def test_the_published_code_keeps_what_the_last_epoch_decided(store):
    final = run(store, **VECTORS)
    last = run(store, **VECTORS, compat="paper-code", name="published")
    line = [json.loads(line) for line in (store.path.parent / "s.detectors/published/metrics.jsonl").open()][-1]
    assert last.kept == round(line["kept"] * last.count)
    assert last.kept != final.kept


def test_a_loss_that_is_no_number_ends_with_a_remedy_and_no_score(store, monkeypatch):
    calls = []

    def broken(*args, **kwargs):
        losses = step_losses(*args, **kwargs)
        calls.append(1)
        return replace(losses, dual=losses.dual * (float("nan") if len(calls) == 12 else 1))

    monkeypatch.setattr(trainer, "step_losses", broken)
    with pytest.raises(InputError, match=r"epoch 2.*no number any more.*no score was written.*--lr 0.003 --no-resume"):
        run(store, **VECTORS)
    assert "detector" not in store.split("train").results("scores")
    assert not (store.path.parent / "s.detectors/class-vectors/result.json").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"apply": "x", "epochs": 3}, "--epochs was given with --apply"),
        ({"tune": "class-vectors", "context_tokens": 4}, "--context-tokens was given with --tune class-vectors"),
        ({"tune": "class-vectors", "model": "ViT-B-32"}, "--model was given with --tune class-vectors"),
        ({"tune": "vpt"}, "--tune is 'vpt'"),
        ({"learning_rate": 0.0}, "--lr"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options, words):
    with pytest.raises(UsageError, match=words):
        AdaptConfig(**options)


def test_a_warm_up_as_long_as_the_run_and_an_unknown_preset_are_refused(store):
    with pytest.raises(UsageError, match="No epoch would train"):
        run(store, **VECTORS, warmup_epochs=3)
    with pytest.raises(UsageError, match="--preset is 'cifar'"):
        run(store, **VECTORS, preset="cifar")
    with pytest.raises(StoreError, match="There is no detector at"):
        run(store, apply="nothing")
