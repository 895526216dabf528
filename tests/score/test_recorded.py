"""A score that another verb writes: every rule reads it, and one that is missing or stale is refused with a command."""

from __future__ import annotations

import sys
import types

import numpy as np
import pytest

from cleanctl import api
from cleanctl.config import SelectConfig
from cleanctl.errors import StoreError
from cleanctl.records import ClassPosterior, Fingerprints, SplitManifest
from cleanctl.registry import SCORERS
from cleanctl.score.compute import record_score
from cleanctl.score.mechanisms import SHARED, RuleResult
from cleanctl.score.recorded import RecordedScorer
from cleanctl.store import Store

ROWS, CLASSES, FAILED = 90, 3, 7


def above_zero(score, label_N, config):
    return RuleResult(score_N=score["margin"], keep_N=score["margin"] > 0)


class Noted(RecordedScorer):
    name = "noted"
    mechanisms = {"sign": above_zero, **SHARED}  # noqa: RUF012
    written_by = "cleanctl note --well"
    evidence = 9


@pytest.fixture(autouse=True)
def _registered(monkeypatch):
    module = types.ModuleType("noted_scorer")
    module.Noted = Noted
    monkeypatch.setitem(sys.modules, "noted_scorer", module)
    monkeypatch.setitem(SCORERS.built_in, "noted", "noted_scorer:Noted")


def fill(path, label_N):
    """A store of random embeddings with one unreadable row, or the same store with other labels."""
    rng = np.random.default_rng(0)
    image = rng.standard_normal((ROWS, 8))
    image = (image / np.linalg.norm(image, axis=1, keepdims=True)).astype(np.float16)
    keys = [f"{row:03d}" for row in range(ROWS)]
    zeros = np.zeros(ROWS, np.int64)
    fingerprints = Fingerprints(digest_N16=np.zeros((ROWS, 16), np.uint8), size_N=zeros, mtime_ns_N=zeros)
    manifest = SplitManifest(split="train", keys=keys, label_N=label_N.astype(np.int32))
    store = Store.open(path) if Store.exists(path) else Store.create(path, classes=["a", "b", "c"], encoder={})
    with store.write_split(manifest, dim=8, fingerprints=fingerprints) as writer:
        if len(writer.pending_rows()):
            rows = np.setdiff1d(np.arange(ROWS), [FAILED])
            writer.put(rows, image[rows])
            writer.fail(np.array([FAILED]), ["truncated"])
        writer.finish()
    return store


def record(store):
    split = store.split("train")
    count = len(split.ok_rows())
    label = split.label_N()[split.ok_rows()]
    rng = np.random.default_rng(1)
    prob = rng.dirichlet([1.0] * CLASSES, count)
    given = prob[np.arange(count), label]
    ordered = np.sort(prob, axis=1)
    posterior = ClassPosterior(
        p_label=given.astype(np.float32),
        p_max=ordered[:, -1].astype(np.float32),
        suggested=prob.argmax(axis=1).astype(np.int32),
        p_second=ordered[:, -2].astype(np.float32),
        entropy=-(prob * np.log(prob)).sum(axis=1).astype(np.float32),
        log_p_label=np.log(given).astype(np.float32),
    )
    margin = rng.standard_normal(count).astype(np.float32)
    about = {"ran": {"by": "a test"}, "run": "one"}
    record_score(split, Noted, posterior, {"margin": margin}, about, label_M=label, num_classes=CLASSES, device="cpu")
    return posterior, margin


@pytest.fixture
def store(tmp_path):
    return fill(tmp_path / "s.zarr", np.arange(ROWS) % CLASSES)


def test_every_rule_reads_what_the_other_verb_wrote(store):
    posterior, margin = record(store)
    summary = api.select(SelectConfig(strategy="noted.sign & noted.consistency", fallback="none"), store=store.path)
    arrays = store.split("train").read_result("selections", summary.name).arrays
    ok = np.delete(np.arange(ROWS), FAILED)
    assert np.array_equal(arrays["noted.sign.keep"][ok], margin > 0)
    assert not arrays["noted.sign.keep"][FAILED]
    assert np.array_equal(arrays["suggested"][ok], posterior.suggested)
    ratio = posterior.p_label / posterior.p_max
    assert np.array_equal(arrays["keep"][ok], (margin > 0) & (ratio >= np.float32(0.8)))
    assert summary.scores[0].ran == {"by": "a test"}
    mixed = api.select(SelectConfig(strategy="noted.loss", compat="paper-code"), store=store.path)
    assert [one.score for one in mixed.scores] == ["noted"]


def test_a_missing_score_is_refused_with_the_command_to_type(store):
    with pytest.raises(StoreError, match=r"train.* has none.*cleanctl note --well") as caught:
        api.select(SelectConfig(strategy="noted.sign"), store=store.path)
    assert caught.value.exit_code == 4


def test_a_score_of_other_labels_is_refused(store):
    record(store)
    fill(store.path, (np.arange(ROWS) + 1) % CLASSES)
    with pytest.raises(StoreError, match=r"older than its images or labels.*cleanctl note --well"):
        api.select(SelectConfig(strategy="noted.sign"), store=store.path)


def test_a_score_of_labels_that_were_replaced_meanwhile_is_not_stored(store, monkeypatch):
    def relabelled_first(split, *found, original=record_score, **more):
        fill(split.store_path, (np.arange(ROWS) + 1) % CLASSES)
        original(split, *found, **more)

    monkeypatch.setitem(record.__globals__, "record_score", relabelled_first)
    with pytest.raises(StoreError, match=r"images or labels of split 'train' of .* changed while this ran"):
        record(store)
    assert not store.split("train").results("scores")
