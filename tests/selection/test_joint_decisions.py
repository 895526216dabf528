"""What `select --strategy joint` decides and states: targets, budgets, verdicts, and a warning instead of a number."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from threadpoolctl import threadpool_limits

from cleanctl import api
from cleanctl.cli.tables.select import selection_tables
from cleanctl.config import SelectConfig
from cleanctl.errors import InputError, UsageError
from cleanctl.records import Fingerprints, SplitManifest, TextEmbeddings
from cleanctl.score.joint import longest
from cleanctl.selection.verdicts import read_verdicts, recalibrated
from cleanctl.store import Store

_spec = importlib.util.spec_from_file_location("geometry_joint", Path(__file__).parents[2] / "bench" / "geometry.py")
assert _spec is not None
assert _spec.loader is not None
geometry = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(geometry)

ROWS, CLASSES, FAILED = 1200, 5, (7, 1100)


class Notes:
    def __init__(self):
        from cleanctl.progress import SILENT

        self.said, self.warned, self.track = [], [], SILENT.track

    def note(self, text):
        self.said.append(text)

    def warn(self, text):
        self.warned.append(text)


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with threadpool_limits(1):
        yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def data():
    return geometry.clip_like(ROWS, dim=32, classes=CLASSES, prompts=10, noise=0.3, seed=2)


@pytest.fixture(scope="module")
def store(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("joint") / "s.zarr"
    encoder = {"model": "synthetic", "logit_scale": 40.0}
    made = Store.create(path, classes=[f"class {k}" for k in range(CLASSES)], encoder=encoder)
    zero = np.zeros(ROWS, np.int64)
    fingerprints = Fingerprints(digest_N16=np.zeros((ROWS, 16), np.uint8), size_N=zero, mtime_ns_N=zero)
    keys = [f"{row:05d}.jpg" for row in range(ROWS)]
    manifest = SplitManifest(split="train", keys=keys, label_N=data.label_N, truth_N=data.truth_N)
    with made.write_split(manifest, dim=32, fingerprints=fingerprints) as writer:
        rows = np.setdiff1d(np.arange(ROWS), FAILED)
        writer.put(rows, data.image_ND[rows])
        writer.fail(np.array(FAILED), ["truncated"] * len(FAILED))
        writer.finish()
    prompts = ("p",) * len(data.class_P)
    made.write_text(TextEmbeddings(embedding_PD=data.text_PD, class_P=data.class_P, prompts=prompts), {})
    return made


def run(store, **options):
    notes = Notes()
    out = options.pop("out", None)
    config = SelectConfig(**{"strategy": "joint", "device": "cpu", **options})
    summary = api.select(config, store=store.path, out=out, progress=notes)
    return summary, store.split("train").read_result("selections", summary.name).arrays, notes


def ok():
    return np.setdiff1d(np.arange(ROWS), FAILED)


def test_joint_is_the_rule_joint_posterior_at_the_models_temperature(store):
    summary, arrays, notes = run(store)
    assert [rule.rule for rule in summary.rules] == ["joint.posterior"]
    assert summary.evidence == "joint"
    assert any("temperature 0.025 (the model's own, 1/40)" in text for text in notes.said)
    rows = ok()
    np.testing.assert_array_equal(arrays["joint.posterior.keep"][rows], arrays["p_label"][rows] >= 0.5)
    higher, _, _ = run(store, theta_posterior=0.9, name="higher")
    assert higher.kept < summary.kept


def test_what_is_stated_is_computed_from_what_is_stored_and_near_the_truth(store, data):
    summary, arrays, _ = run(store)
    rows, told = ok(), summary.expected
    keep, p = arrays["keep"][rows].astype(bool), arrays["p_label"][rows].astype(np.float64)
    assert told.precision == pytest.approx(p[keep].mean(), abs=1e-6)
    assert told.recall == pytest.approx(p[keep].sum() / p.sum(), abs=1e-6)
    clean = (data.label_N == data.truth_N)[rows]
    assert told.precision == pytest.approx(clean[keep].mean(), abs=0.06)
    assert told.noise == pytest.approx(1 - clean.mean(), abs=0.06)
    assert "true class alone" in told.assumes
    stored = store.split("train").results("selections")[summary.name]["summary"]
    assert json.loads(json.dumps(summary.to_json()))["expected"] == stored["expected"]
    shown = " ".join(text for text in selection_tables(summary) if isinstance(text, str))
    assert f"{100 * told.precision:.1f} % of the kept labels are right" in shown
    assert "This assumes: The noise depends on the true class alone" in shown


def test_the_transition_matrix_is_stored_with_the_score_and_stands_for_the_counts(store, data):
    summary, _, _ = run(store)
    findings = store.split("train").results("scores")[summary.scores[0].score]["findings"]
    pairs = findings["transition"]
    rate, count = np.zeros((CLASSES, CLASSES)), np.zeros((CLASSES, CLASSES))
    rate[pairs["true"], pairs["given"]] = pairs["rate"]
    count[pairs["true"], pairs["given"]] = pairs["samples"]
    np.testing.assert_allclose(rate.sum(axis=1), 1, atol=1e-3)
    label, truth = data.label_N[ok()], data.truth_N[ok()]
    np.testing.assert_allclose(count.sum(axis=0), np.bincount(label), atol=0.1)
    true_rate = np.array([[(label[truth == z] == y).mean() for y in range(CLASSES)] for z in range(CLASSES)])
    assert np.abs(rate - true_rate).max() < 0.1
    np.testing.assert_allclose(
        [one.noise for one in summary.classes], 1 - np.diag(count) / np.bincount(label), atol=1e-3
    )
    assert list(summary.confusion.likely) == pairs["true"]
    assert list(summary.expected.transition.rate) == pairs["rate"]


@pytest.mark.parametrize("target", [0.8, 0.95, 0.99])
def test_keep_precision_keeps_the_longest_ranking_that_is_expected_to_hold_it(store, target):
    summary, arrays, _ = run(store, keep_precision=target, name=f"p{target}", fallback="none")
    rows = ok()
    keep, p = arrays["keep"][rows].astype(bool), arrays["p_label"][rows].astype(np.float64)
    assert summary.expected.precision >= target
    assert p[keep].min() >= p[~keep].max() if keep.any() and not keep.all() else True
    following = np.append(p[keep], p[~keep].max()) if not keep.all() else p
    assert keep.all() or following.mean() < target


def test_longest_is_empty_or_whole_at_the_ends():
    p = np.array([0.9, 0.2, 0.7], np.float32)
    assert longest(p, 0.95).sum() == 0
    assert longest(p, 0.0).all()
    assert longest(p, 0.79).tolist() == [True, False, True]


def test_a_budget_numbers_the_labels_that_are_least_likely_right(store, data, tmp_path):
    out = tmp_path / "t.parquet"
    summary, arrays, _ = run(store, budget=40, name="b", out=out)
    rank, p = arrays["review"], arrays["p_label"]
    first = np.argsort(np.where(rank > 0, rank, 10**6))[:40]
    assert sorted(rank[rank > 0]) == list(range(1, 41))
    assert (np.diff(p[first]) >= 0).all()
    others = np.setdiff1d(ok(), first)
    assert p[first].max() <= p[others].min()
    assert (data.label_N != data.truth_N)[first].mean() > 0.9
    assert list(summary.expected.look_first) == [f"{row:05d}.jpg" for row in first]
    assert summary.expected.budget_wrong == pytest.approx(float((1 - p[first].astype(float)).sum()), abs=1e-3)
    table = pq.read_table(out)
    assert table.column_names[-1] == "review"
    assert table["review"].to_pylist() == rank.tolist()
    assert "review" not in run(store, name="plain")[1]


def write_verdicts(path, data, rows, column="verdict"):
    right = data.label_N == data.truth_N
    lines = [f"{row:05d}.jpg,{'right' if right[row] else 'wrong'}" for row in rows]
    path.write_text("\n".join([f"key,{column}", *lines]))
    return path


def test_verdicts_recalibrate_keep_the_ranking_and_come_near_the_truth(store, data, tmp_path):
    rows = np.random.default_rng(0).choice(ROWS, 200, replace=False)
    file = write_verdicts(tmp_path / "v.csv", data, rows)
    plain, before, _ = run(store)
    summary, after, _ = run(store, verdicts=file, name="v")
    usable = ok()
    order = np.argsort(before["p_label"][usable], kind="stable")
    assert (np.diff(after["p_label"][usable][order]) >= -1e-7).all()
    assert summary.expected.verdicts == len(np.setdiff1d(rows, FAILED))
    assert "verdicts" in summary.expected.assumes
    clean = (data.label_N == data.truth_N)[usable]
    keep = after["keep"][usable].astype(bool)
    assert summary.expected.precision == pytest.approx(clean[keep].mean(), abs=0.05)
    assert (after["p_label"][usable] <= after["p_max"][usable] + 1e-6).all()
    assert summary.noise == pytest.approx(1 - after["p_label"][usable].mean(), abs=1e-3)
    assert summary.scores[0].score == plain.scores[0].score, "the stored score is as it was"


def test_verdicts_mend_probabilities_that_are_far_too_high():
    rng = np.random.default_rng(1)
    true = rng.beta(4, 1.5, 20_000)
    right = rng.random(20_000) < true
    told = (1 / (1 + np.exp(-(3 + 2 * np.log(true / (1 - true)))))).astype(np.float32)
    errors = []
    for _ in range(20):
        rows = rng.choice(20_000, 200, replace=False)
        keep = (p := recalibrated(told, rows, right[rows]).of(told)) >= 0.5
        errors.append(p[keep].mean() - right[keep].mean())
    assert told.mean() - right.mean() > 0.15
    assert np.abs(errors).mean() < 0.03


@pytest.mark.parametrize(("sharp", "shift"), [(1.0, 0.0), (2.0, 3.0), (0.7, -1.0)])
def test_the_interval_of_the_precision_holds_the_truth_as_often_as_it_says(sharp, shift):
    rng = np.random.default_rng(2)
    true = rng.beta(3, 1, 5_000)
    right = rng.random(5_000) < true
    told = (1 / (1 + np.exp(-(shift + sharp * np.log(true / (1 - true)))))).astype(np.float32)
    held, widths = [], []
    for _ in range(200):
        rows = rng.choice(5_000, 200, replace=False)
        found = recalibrated(told, rows, right[rows])
        after = found.of(told)
        keep = after >= 0.5
        low, high = found.interval(after[keep])
        held.append(low <= right[keep].mean() <= high)
        widths.append(high - low)
    assert np.mean(held) >= 0.9
    assert np.mean(widths) < 0.14


def test_of_labels_that_people_know_the_interval_is_a_point():
    told = np.linspace(0.1, 0.9, 100, dtype=np.float32)
    found = recalibrated(told, np.arange(100), told > 0.4)
    assert found.interval(np.ones(50)) == pytest.approx((1.0, 1.0))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("key,verdict\n00001.jpg,perhaps\n", "'perhaps'"),
        ("key,verdict\nnowhere.jpg,right\n", "'nowhere.jpg', which is no key"),
        ("key,verdict\n00001.jpg,right\n00001.jpg,wrong\n", "names a key twice"),
    ],
)
def test_verdicts_that_cannot_be_read_are_refused(tmp_path, text, told):
    file = tmp_path / "v.csv"
    file.write_text(text)
    with pytest.raises(InputError, match=told):
        read_verdicts(file, ["00001.jpg"])


def test_a_handful_of_verdicts_and_a_file_without_the_column_are_refused(store, data, tmp_path):
    with pytest.raises(InputError, match="holds 3 verdicts"):
        run(store, verdicts=write_verdicts(tmp_path / "v.csv", data, [1, 2, 3]), name="few")
    with pytest.raises(UsageError, match="no column 'verdict'"):
        run(store, verdicts=write_verdicts(tmp_path / "w.csv", data, [1, 2, 3], column="said"), name="few")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"strategy": "intersection", "budget": 5}, "--budget was given with --strategy 'intersection'"),
        ({"strategy": "joint.posterior & zeroshot.match", "keep_precision": 0.9}, "--keep-precision was given"),
        ({"strategy": "knn.match", "verdicts": "v.csv"}, "--verdicts was given"),
        ({"keep_precision": 0.9, "theta_posterior": 0.7, "strategy": "joint"}, "--theta-posterior"),
    ],
)
def test_options_that_the_strategy_would_ignore_are_refused(options, told):
    with pytest.raises(UsageError, match=told):
        SelectConfig(**options)


def test_noise_made_where_a_network_errs_is_warned_of_and_symmetric_noise_is_not(tmp_path, data):
    """Labels that follow the prompts' second choice, as an erring network's do."""
    image, text = data.image_ND.astype(np.float64), data.text_PD.astype(np.float64)
    mass = np.exp(40 * image @ text.T)
    mass = np.stack([mass[:, data.class_P == k].sum(axis=1) for k in range(CLASSES)], axis=1)
    order = np.argsort(-mass, axis=1)
    unsure = np.argsort(mass.max(axis=1) / mass.sum(axis=1))[: ROWS // 3]
    label = data.truth_N.copy()
    label[unsure] = np.where(order[unsure, 0] == label[unsure], order[unsure, 1], order[unsure, 0])
    files = {"image_embeddings": image, "labels": label, "text_embeddings": text, "text_classes": data.class_P}
    for name, values in files.items():
        np.save(tmp_path / f"{name}.npy", values)
    from cleanctl.config import ImportConfig

    config = ImportConfig(**{name: tmp_path / f"{name}.npy" for name in files}, logit_scale=40)
    api.import_arrays(config, store=tmp_path / "s.zarr")
    summary, _, notes = run(Store.open(tmp_path / "s.zarr"))
    assert summary.expected.class_conditional is False
    assert any("Use --strategy intersection, or give 100 to 200 verdicts" in text for text in notes.warned)
    shown = " ".join(text for text in selection_tables(summary) if isinstance(text, str))
    assert "The labels do not tell which" in shown


def test_noise_that_the_class_decides_is_not_warned_of(store):
    summary, _, notes = run(store)
    assert summary.expected.class_conditional is True
    assert not any("where a network errs" in text for text in notes.warned)
