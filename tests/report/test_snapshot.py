"""A report reads one moment of the store: what a writer does meanwhile is in the next report."""

from __future__ import annotations

import numpy as np

from cleanctl import api
from cleanctl.config import ReportConfig, SelectConfig
from cleanctl.report.evidence import evidence_of
from cleanctl.report.snapshot import take_snapshot
from cleanctl.store import Store
from tests.report.stores import make_store


def test_a_split_that_is_replaced_while_it_is_read_stays_the_version_it_was(tmp_path):
    path = make_store(tmp_path, rows=90, strategies=("zeroshot.match",))
    store = Store.open(path)
    split = store.split("train")
    labels = split.label_N()
    make_store(tmp_path, rows=120, strategies=("zeroshot.match",), seed=3)  # other rows, other labels
    snapshot = take_snapshot(store, split, None)
    assert len(snapshot) == 90
    np.testing.assert_array_equal(snapshot.label_N, labels)
    assert len(evidence_of(snapshot)[0].score_N) == 90
    assert api.report(ReportConfig(), store=path).samples == 120


def test_a_report_leaves_the_store_as_it_is(tmp_path):
    path = make_store(tmp_path, rows=90, strategies=("zeroshot.match",))
    api.select(SelectConfig(strategy="zeroshot.consistency"), store=path)
    before = {file: (file.stat().st_mtime_ns, file.stat().st_size) for file in path.rglob("*") if file.is_file()}
    api.report(ReportConfig(against="zeroshot.match"), store=path)
    after = {file: (file.stat().st_mtime_ns, file.stat().st_size) for file in path.rglob("*") if file.is_file()}
    assert after == before
