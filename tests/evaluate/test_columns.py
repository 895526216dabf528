"""Every stored column from what computes it, through the store, to those who read it; no array is made by hand."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
from sklearn.metrics import roc_auc_score

from cleanctl import api
from cleanctl.config import EvalConfig, SelectConfig
from cleanctl.records import Fingerprints, SplitManifest, TextEmbeddings
from cleanctl.store import Store

_spec = importlib.util.spec_from_file_location("geometry", Path(__file__).parents[2] / "bench" / "geometry.py")
assert _spec is not None
assert _spec.loader is not None
geometry = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(geometry)

ROWS, CLASSES, FAILED = 400, 4, 17
STRATEGY = "zeroshot.loss & logistic.consistency & zeroshot.match & ~zeroshot.similarity | logistic.loss"
RULES = ("zeroshot.loss", "logistic.consistency", "zeroshot.match", "zeroshot.similarity", "logistic.loss")
TEMPERATURE = 0.05


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(store, data, table, summary, report) of one select and one eval."""
    folder = tmp_path_factory.mktemp("columns")
    data = geometry.clip_like(ROWS, dim=32, classes=CLASSES, prompts=11, noise=0.4, seed=2)
    store = Store.create(folder / "s.zarr", classes=[f"class {k}" for k in range(CLASSES)], encoder={"model": "drawn"})
    zero = np.zeros(ROWS, np.int64)
    manifest = SplitManifest(
        split="train", keys=[f"{row:05d}.jpg" for row in range(ROWS)], label_N=data.label_N, truth_N=data.truth_N
    )
    fingerprints = Fingerprints(digest_N16=np.zeros((ROWS, 16), np.uint8), size_N=zero, mtime_ns_N=zero)
    with store.write_split(manifest, dim=32, fingerprints=fingerprints) as writer:
        rows = np.delete(np.arange(ROWS), FAILED)
        writer.put(rows, data.image_ND[rows])
        writer.fail(np.array([FAILED]), ["truncated"])
        writer.finish()
    text = TextEmbeddings(embedding_PD=data.text_PD, class_P=data.class_P, prompts=("",) * 11)
    store.write_text(text, {"prompts": "drawn"})
    config = SelectConfig(strategy=STRATEGY, name="chosen", temperature=TEMPERATURE, fallback="none", device="cpu")
    summary = api.select(config, store=store.path, out=folder / "table.parquet")
    report = api.evaluate(EvalConfig(device="cpu"), store=store.path)
    return store, data, pyarrow.parquet.read_table(folder / "table.parquet"), summary, report


def stored(made):
    split, summary = made[0].split("train"), made[3]
    scores = {one.scorer: split.read_result("scores", one.score).arrays for one in summary.scores}
    return split.ok_rows(), scores, split.read_result("selections", "chosen").arrays


def zero_shot_probabilities(data):
    mass = np.exp(data.image_ND.astype(np.float64) @ data.text_PD.T.astype(np.float64) / TEMPERATURE)
    pooled = np.stack([mass[:, data.class_P == k].sum(axis=1) for k in range(CLASSES)], axis=1)
    return pooled / pooled.sum(axis=1, keepdims=True)


def test_the_columns_of_a_score_are_those_of_the_formula(made):
    ok, scores, _ = stored(made)
    data, score = made[1], scores["zeroshot"]
    assert set(score) == {"p_label", "p_max", "suggested", "p_second", "entropy", "log_p_label", "clean", "scaled"}
    prob = zero_shot_probabilities(data)[ok]
    label, ordered = data.label_N[ok], np.sort(prob, axis=1)
    p_label = prob[np.arange(len(ok)), label]
    np.testing.assert_allclose(score["p_label"][ok], p_label, atol=1e-5)
    np.testing.assert_allclose(score["log_p_label"][ok], np.log(p_label), atol=1e-4)
    np.testing.assert_allclose(score["p_max"][ok], ordered[:, -1], atol=1e-5)
    np.testing.assert_allclose(score["p_second"][ok], ordered[:, -2], atol=1e-5)
    np.testing.assert_allclose(score["entropy"][ok], -(prob * np.log(prob)).sum(axis=1), atol=1e-4)
    np.testing.assert_array_equal(score["suggested"][ok], prob.argmax(axis=1))
    for k in range(CLASSES):
        mine = np.log(p_label[label == k])
        expected = (mine - mine.min()) / (mine.max() - mine.min())
        np.testing.assert_allclose(score["scaled"][ok][label == k], expected, atol=1e-4)
    assert np.isnan(score["clean"][FAILED])
    assert score["suggested"][FAILED] == -1


def test_the_columns_of_a_selection_follow_from_the_scores(made):
    ok, scores, chosen = stored(made)
    zero, logistic, label = scores["zeroshot"], scores["logistic"], made[1].label_N
    expected = {
        "zeroshot.loss": (zero["log_p_label"], zero["clean"] >= 0.5),
        "logistic.consistency": (r := logistic["p_label"] / logistic["p_max"], r >= np.float32(0.8)),
        "zeroshot.match": (None, zero["suggested"] == label),
        "zeroshot.similarity": (s := scores["similarity"]["similarity"], s >= np.float32(0.25)),
        "logistic.loss": (logistic["log_p_label"], logistic["clean"] >= 0.5),
    }
    for rule, (score, keep) in expected.items():
        np.testing.assert_array_equal(chosen[f"{rule}.keep"][ok], keep[ok])
        if score is not None:
            np.testing.assert_array_equal(chosen[f"{rule}.score"][ok], score[ok])
    a, b, c, d, e = (chosen[f"{rule}.keep"] for rule in RULES)
    np.testing.assert_array_equal(chosen["keep"][ok], (a & b & c & ~d | e)[ok])
    np.testing.assert_array_equal(chosen["votes"][ok], sum(part.astype(int) for part in (a, b, c, d, e))[ok])
    for rule, source in (("zeroshot.loss", zero), ("logistic.loss", logistic)):
        np.testing.assert_array_equal(chosen[f"{rule}.posterior"][ok], source["clean"][ok])
    for column in ("suggested", "p_label", "p_max"):  # the evidence is the logistic's
        np.testing.assert_array_equal(chosen[column][ok], logistic[column][ok])
    assert not chosen["keep"][FAILED]


def test_the_table_shows_the_columns_of_the_selection(made):
    ok, _, chosen = stored(made)
    table = made[2]
    for name, column in [
        ("keep", "keep"),
        ("p_label", "p_label"),
        ("p_max", "p_max"),
        ("suggested", "suggested_label"),
    ]:
        np.testing.assert_array_equal(np.array(table[column].to_pylist(), object)[ok], chosen[name][ok])
    for rule in RULES:
        for part in ("score", "keep"):
            shown = np.array(table[f"{rule}.{part}"].to_pylist(), object)[ok]
            np.testing.assert_array_equal(shown, chosen[f"{rule}.{part}"][ok])
    assert table["p_label"][FAILED].as_py() is None


def test_eval_judges_the_columns_of_the_selection(made):
    ok, _, chosen = stored(made)
    data, quality = made[1], made[4].selection
    label, clean = data.label_N[ok], (data.label_N == data.truth_N)[ok]
    assert quality.found.precision == pytest.approx(clean[chosen["keep"][ok].astype(bool)].mean())
    for rule in quality.rules:
        score = chosen[f"{rule.rule}.score"][ok].astype(np.float64)
        assert rule.auc == pytest.approx(roc_auc_score(clean, score))
        assert rule.found.kept == chosen[f"{rule.rule}.keep"][ok].sum()
        if not rule.rule.endswith(".loss"):
            assert rule.auc_raw is rule.auc_scaled is None
            continue
        scaled = np.empty(len(ok))
        for k in range(CLASSES):
            mine = score[label == k]
            scaled[label == k] = (mine - mine.min()) / (mine.max() - mine.min())
        assert rule.auc_raw == rule.auc
        assert rule.auc_scaled == pytest.approx(roc_auc_score(clean, scaled))
        assert rule.auc_scaled != rule.auc_raw


def test_eval_measures_zero_shot_as_the_selection_did(made):
    data, report = made[1], made[4]
    prob = np.delete(zero_shot_probabilities(data), FAILED, axis=0)
    right = prob.argmax(axis=1) == np.delete(data.truth_N, FAILED)
    (found,) = report.zero_shot
    assert found.pooled.top1 == pytest.approx(right.mean())
    assert any("temperature 0.05, prompts pooled by sum, as in selection chosen" in note for note in report.notes)
