"""A selection from the store: complete, repeatable, and honest about what it could not use."""

from __future__ import annotations

import importlib.util
import json
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow.csv
import pyarrow.parquet
import pytest

from cleanctl import api
from cleanctl.cli.tables.select import selection_tables
from cleanctl.config import SelectConfig
from cleanctl.errors import UsageError
from cleanctl.export.exporter import exporter_for, write_table
from cleanctl.records import Fingerprints, SplitManifest, Status, TextEmbeddings
from cleanctl.score.compute import score_split
from cleanctl.score.zeroshot import ZeroShot
from cleanctl.selection.select import select_split
from cleanctl.selection.table import selection_table
from cleanctl.store import Store

_spec = importlib.util.spec_from_file_location("geometry", Path(__file__).parents[2] / "bench" / "geometry.py")
assert _spec is not None
assert _spec.loader is not None
geometry = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(geometry)

ROWS, CLASSES, FAILED = 700, 5, (3, 650)
COLUMNS = ["key", "label", "label_name", "keep", "suggested_label", "suggested_name", "p_label", "p_max"]


class Notes:
    """A Progress that remembers what was said."""

    def __init__(self):
        from cleanctl.progress import SILENT

        self.said, self.warned, self.track = [], [], SILENT.track

    def note(self, text):
        self.said.append(text)

    def warn(self, text):
        self.warned.append(text)


@pytest.fixture(scope="module")
def data():
    return geometry.clip_like(ROWS, dim=32, classes=CLASSES, prompts=13, noise=0.4, seed=1)


@pytest.fixture
def store(tmp_path, data):
    return make_store(tmp_path / "s.zarr", data)


def make_store(path, data, *, failed=FAILED):
    store = Store.create(path, classes=[f"class {k}" for k in range(CLASSES)], encoder={"model": "synthetic"})
    keys = [f"{row:05d}.jpg" for row in range(ROWS)]
    fingerprint = np.zeros(ROWS, np.int64)
    fingerprints = Fingerprints(digest_N16=np.zeros((ROWS, 16), np.uint8), size_N=fingerprint, mtime_ns_N=fingerprint)
    manifest = SplitManifest(split="train", keys=keys, label_N=data.label_N, truth_N=data.truth_N)
    with store.write_split(manifest, dim=data.image_ND.shape[1], fingerprints=fingerprints) as writer:
        rows = np.setdiff1d(np.arange(ROWS), failed)
        writer.put(rows, data.image_ND[rows])
        writer.fail(np.array(failed), ["truncated"] * len(failed))
        writer.finish()
    text = TextEmbeddings(
        embedding_PD=data.text_PD, class_P=data.class_P, prompts=tuple(f"p{i}" for i in range(len(data.class_P)))
    )
    store.write_text(text, {"prompts": "synthetic"})
    return store


def run(store, progress=None, out=None, **options):
    config = SelectConfig(**options)
    split = store.split("train")
    extra = {} if progress is None else {"progress": progress}
    score_split(store, split, config, **extra)
    summary = select_split(store, split, config, **extra)
    result = split.read_result("selections", summary.name)
    if out is not None:
        write_table(exporter_for(out), out, *selection_table(split, result.arrays, store.classes))
    return summary, result


def test_classes_that_keep_nothing_get_their_best_and_are_named(store, data):
    notes = Notes()
    _, result = run(store, strategy="zeroshot.similarity", theta_similarity=1.0, progress=notes)
    each = (ROWS - len(FAILED)) // CLASSES**2
    assert np.bincount(data.label_N[result.arrays["keep"].astype(bool)]).tolist() == [each] * CLASSES
    names = ", ".join(f"class {k}" for k in range(CLASSES))
    assert notes.warned == [f"{CLASSES} classes kept no sample and got the best {each} by zeroshot score: {names}."]


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_the_table_has_the_fixed_columns_and_one_row_a_sample_in_store_order(store, data, tmp_path, suffix):
    out = tmp_path / f"table.{suffix}"
    run(store, out=out, strategy="zeroshot.loss | ~logistic.match")
    read = pyarrow.parquet.read_table if suffix == "parquet" else pyarrow.csv.read_csv
    table = read(out)
    rules = ["zeroshot.loss", "logistic.match"]
    assert table.column_names == COLUMNS + [f"{rule}.{part}" for rule in rules for part in ("score", "keep")]
    assert table["key"].to_pylist() == [f"{row:05d}.jpg" for row in range(ROWS)]
    assert table["label"].to_pylist() == data.label_N.tolist()
    assert table["label_name"].to_pylist() == [f"class {k}" for k in data.label_N]
    for row in FAILED:
        line = table.slice(row, 1).to_pylist()[0]
        assert line["keep"] is False
        assert line["zeroshot.loss.keep"] is False
        assert line["p_label"] is None
        assert line["zeroshot.loss.score"] is None
        assert line["suggested_label"] is None
    assert list(out.parent.glob(".*.part")) == []


def test_intersection_keeps_what_all_four_rules_keep_and_votes_count_them(store):
    summary, result = run(store, fallback="none")
    masks = np.stack([result.arrays[f"{rule.rule}.keep"] for rule in summary.rules])
    assert len(masks) == 4
    assert (result.arrays["keep"] == masks.all(axis=0)).all()
    assert (result.arrays["votes"] == masks.sum(axis=0)).all()
    assert summary.kept == int(result.arrays["keep"].sum())
    ok = np.setdiff1d(np.arange(ROWS), FAILED)
    assert summary.votes == tuple((result.arrays["votes"][ok] == count).sum() for count in range(5))
    assert summary.failed == len(FAILED)
    assert sum(entry.count for entry in summary.classes) == ROWS - len(FAILED)
    assert 0 < summary.kept < summary.count


def test_the_selection_is_better_than_the_labels(store, data):
    _, result = run(store)
    keep = result.arrays["keep"].astype(bool)
    clean = data.label_N == data.truth_N
    assert clean[keep].mean() > clean.mean() + 0.2


def test_the_same_seed_gives_the_same_selection(tmp_path, data):
    first = run(make_store(tmp_path / "a.zarr", data), crossfit=3, seed=5)[1].arrays
    second = run(make_store(tmp_path / "b.zarr", data), crossfit=3, seed=5)[1].arrays
    for name, values in first.items():
        np.testing.assert_array_equal(values, second[name])


def test_scores_of_equal_parameters_are_computed_once(store, monkeypatch):
    calls, real = [], ZeroShot.fit
    monkeypatch.setattr(ZeroShot, "fit", lambda *a: calls.append(1) or real(*a))
    notes = Notes()
    run(store, strategy="zeroshot.loss")
    run(store, strategy="zeroshot.match", theta_gmm=0.9, progress=notes)
    assert len(calls) == 1
    assert any("used again" in text for text in notes.said)
    run(store, strategy="zeroshot.match", temperature=0.05)
    assert len(calls) == 2


def test_ivf_scores_lie_beside_the_exact_ones_and_their_recall_is_told(store):
    exact, _ = run(store, strategy="knn.match", name="exact", neighbors=10)
    ivf, result = run(store, strategy="knn.match", name="ivf", neighbors=10, knn_index="ivf", knn_probes=2)
    stored = store.split("train").results("scores")
    assert {"knn-neighbors=10-revision=2", "knn-neighbors=10-index=ivf-probes=2-revision=2"} <= set(stored)
    assert "recall" not in exact.scores[0].ran
    told = json.loads(json.dumps(ivf.to_json()))["scores"][0]
    assert told["score"] == "knn-neighbors=10-index=ivf-probes=2-revision=2"
    assert told["ran"]["probes"] == 2
    assert 0.2 < told["ran"]["recall"] < 1.0
    assert stored[told["score"]]["ran"] == told["ran"]
    assert result.attributes["summary"]["scores"][0]["ran"] == told["ran"]
    shown = " ".join(text for text in selection_tables(ivf) if isinstance(text, str))
    assert f"{100 * told['ran']['recall']:.1f} % of the true neighbours" in shown
    again, _ = run(store, strategy="knn.match", name="again", neighbors=10, knn_index="ivf", knn_probes=2)
    assert again.scores[0].ran == told["ran"]  # also where the stored score is used again


def test_the_mended_posterior_uses_the_same_scores_and_never_drops_a_sample(store):
    options = {"strategy": "logistic.loss", "fallback": "none"}
    _, fitted = run(store, name="fitted", **options)
    notes = Notes()
    _, mended = run(store, name="mended", mixture_posterior="monotone", progress=notes, **options)
    assert any("used again" in text for text in notes.said)
    assert mended.attributes["config"]["mixture_posterior"] == "monotone"
    before, after = fitted.arrays, mended.arrays
    ok = np.setdiff1d(np.arange(ROWS), FAILED)
    assert (after["logistic.loss.posterior"][ok] >= before["logistic.loss.posterior"][ok] - 1e-6).all()
    label, score = store.split("train").label_N()[ok], after["logistic.loss.score"][ok]
    keep = after["keep"][ok].astype(bool)
    assert (keep >= before["keep"][ok].astype(bool)).all()
    for k in range(CLASSES):
        kept, dropped = score[(label == k) & keep], score[(label == k) & ~keep]
        assert not len(kept) or not len(dropped) or kept.min() >= dropped.max()


@pytest.mark.parametrize("option", [{"mixture_posterior": "monotone"}, {"knn_index": "ivf"}])
def test_paper_code_mode_refuses_what_the_published_code_lacks(option):
    with pytest.raises(UsageError, match="--compat paper-code"):
        SelectConfig(compat="paper-code", **option)


@pytest.mark.parametrize(
    ("option", "told"),
    [
        ({"knn_index": "hnsw"}, "exact, ivf"),
        ({"knn_index": "ivf", "knn_probes": 0}, "--knn-probes"),
        ({"knn_probes": 8}, "--knn-probes was given without --knn-index ivf"),
        ({"knn_recall": 0.5}, "--knn-recall was given without --knn-index ivf"),
        ({"knn_index": "ivf", "knn_recall": 0.0}, "--knn-recall"),
        ({"knn_index": "ivf", "knn_recall": 0.5, "knn_probes": 8}, "--knn-recall was given with --knn-probes"),
        ({"mixture_posterior": "x"}, "fitted"),
    ],
)
def test_options_out_of_range_are_refused_by_name(option, told):
    with pytest.raises(UsageError, match=told):
        SelectConfig(**option)


def test_other_prompts_make_zero_shot_scores_anew(store, data):
    before = run(store, strategy="zeroshot.match", name="m")[1].arrays["p_label"]
    turned = TextEmbeddings(
        embedding_PD=np.roll(data.text_PD, 1, axis=0), class_P=data.class_P, prompts=("x",) * len(data.class_P)
    )
    store.write_text(turned, {})
    after = run(store, strategy="zeroshot.match", name="m")[1].arrays["p_label"]
    assert not np.array_equal(before, after, equal_nan=True)


def test_the_record_holds_every_parameter_and_is_json(store):
    summary, result = run(store, strategy="vote:3", theta_gmm=0.4, seed=9)
    stored = json.loads(json.dumps(result.attributes))
    assert stored["config"]["theta_gmm"] == 0.4
    assert stored["config"]["seed"] == 9
    assert stored["strategy"] == "vote:3"
    assert stored["labels"] == store.split("train").label_fingerprint()
    assert json.loads(json.dumps(summary.to_json()))["kept"] == summary.kept


def test_what_is_learnt_of_each_class_and_of_the_confusion_is_told_stored_and_shown(store, data):
    summary, result = run(store)
    told = json.loads(json.dumps(summary.to_json()))
    assert result.attributes["summary"] == told
    ok = np.setdiff1d(np.arange(ROWS), FAILED)
    label, suggested = data.label_N[ok], result.arrays["suggested"][ok]
    assert told["suggested_other"] == int((label != suggested).sum())
    for k, entry in enumerate(told["classes"]):
        assert entry["count"] == (label == k).sum()
        assert entry["kept"] == result.arrays["keep"][ok][label == k].sum()
        assert 0 <= entry["noise"] <= 1
    joint = np.zeros((CLASSES, CLASSES))
    joint[told["confusion"]["given"], told["confusion"]["likely"]] = told["confusion"]["samples"]
    np.testing.assert_allclose(joint.sum(axis=1), np.bincount(label), atol=1)
    wrong = [1 - joint[k, k] / joint[k].sum() for k in range(CLASSES)]
    np.testing.assert_allclose(wrong, [entry["noise"] for entry in told["classes"]], atol=0.01)
    top = told["confused"][0]
    np.fill_diagonal(joint, 0)
    given, likely = np.unravel_index(joint.argmax(), joint.shape)
    assert (top["given"], top["likely"]) == (f"class {given}", f"class {likely}")
    shown = {table.title: table for table in selection_tables(summary) if hasattr(table, "columns")}
    assert "est. noise" in [column.header for column in shown["Kept by class"].columns]
    assert "likely label" in [column.header for column in shown["Most confused"].columns]
    agree = list(shown["Rules that agree"].columns[1].cells)
    assert agree == [f"{told['votes'][votes]:,}" for votes in (4, 3, 2, 1, 0)]


def test_paper_code_mode_lists_its_deviations_and_agrees_nearly(store):
    plain = run(store, name="plain")[1].arrays["keep"].astype(bool)
    summary, result = run(store, compat="paper-code", name="paper")
    paper = result.arrays["keep"].astype(bool)
    assert any("random stream" in text for text in summary.deviations)
    assert (plain & paper).sum() / (plain | paper).sum() > 0.9


def test_mixtures_that_did_not_converge_are_counted_and_told(store, monkeypatch):
    import cleanctl.score.compute as compute

    monkeypatch.setattr(compute, "loss_scores", partial(compute.loss_scores, max_iter=1))
    notes = Notes()
    summary, result = run(store, strategy="zeroshot.loss", progress=notes)
    assert summary.rules[0].details["not_converged"] == list(range(CLASSES))
    assert result.attributes["summary"]["rules"][0]["details"]["not_converged"] == list(range(CLASSES))
    assert any("mixtures of 5 classes did not converge (class 0, class 1," in text for text in notes.warned)


def test_a_strategy_without_text_needs_no_text(tmp_path, data):
    store = make_store(tmp_path / "t.zarr", data)
    import shutil

    shutil.rmtree(store.path / "text")
    summary, _ = run(store, strategy="logistic.match & knn.match", neighbors=10)
    assert summary.kept > 0


def test_a_bad_table_name_is_refused_before_any_work(store, tmp_path):
    with pytest.raises(UsageError, match=r"\.parquet or \.csv"):
        api.select(SelectConfig(strategy="zeroshot.match"), store=store.path, out=tmp_path / "table.xlsx")
    assert store.split("train").results("scores") == {}


def test_failed_rows_stay_failed_in_every_array(store):
    _, result = run(store, strategy="~zeroshot.match | ~logistic.loss")
    status = store.split("train").status_N()
    assert (status[list(FAILED)] == Status.FAILED).all()
    assert not result.arrays["keep"][list(FAILED)].any()
    assert np.isnan(result.arrays["p_label"][list(FAILED)]).all()
