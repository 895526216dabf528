"""Runs beside a store are shown as their folders say; one that is damaged or goes on at the moment hides no other."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from cleanctl import api
from cleanctl.config import ReportConfig
from cleanctl.errors import StoreError
from cleanctl.report.runs import read_runs
from tests.report.stores import make_store

OLD_RUN = Path(__file__).parent.parent / "train" / "old_run"


@pytest.fixture
def store(tmp_path):
    path = make_store(tmp_path, rows=60, strategies=("zeroshot.match",))
    for name in ("first", "second", "<b>third"):
        shutil.copytree(OLD_RUN, tmp_path / "cleanctl.runs" / name)
    return path


def test_a_run_s_history_and_outcome_are_shown(store, tmp_path):
    run = next(run for run in read_runs(store, "train").runs if run.name == "first")
    assert run.state == "finished"
    assert run.last_top1 == 0.25
    assert run.series("absorbed").tolist() == [0.0, 21.0, 21.0]
    made = api.report(ReportConfig(out=tmp_path / "page.html", run=("first", "<b>third")), store=store)
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert made.runs == ("<b>third", "first")
    assert "&lt;b&gt;third" in text
    assert "<b>third" not in text.split('id="facts"')[0]
    assert "25.0 % (1)" in text
    assert "members of first" in text


def test_a_run_that_goes_on_has_the_epochs_it_has(store, tmp_path):
    folder = tmp_path / "cleanctl.runs" / "second"
    (folder / "result.json").unlink()
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    (folder / "metrics.jsonl").write_text(lines[0] + "\n")
    run = next(run for run in read_runs(store, "train").runs if run.name == "second")
    assert (run.state, len(run.history), run.last_top1) == ("stopped", 1, None)
    api.report(ReportConfig(out=tmp_path / "page.html"), store=store)
    assert "1 of 3, stopped" in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_a_damaged_run_is_named_and_hides_no_other(store, tmp_path):
    (tmp_path / "cleanctl.runs" / "second" / "config.json").write_text("{")
    found = read_runs(store, "train")
    assert found.damaged == ("second",)
    assert {run.name for run in found.runs} == {"first", "<b>third"}
    api.report(ReportConfig(out=tmp_path / "page.html"), store=store)
    assert "Cannot be read: second." in (tmp_path / "page.html").read_text(encoding="utf-8")
    with pytest.raises(StoreError):
        read_runs(store, "train", ("second",))


def test_runs_of_another_split_are_left_out(store):
    assert read_runs(store, "val").runs == ()
