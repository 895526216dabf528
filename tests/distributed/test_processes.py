"""Promises about `select --processes`: the selection of one process, an error for one that dies, and nobody left."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import parts_store as parts
import psutil
import pytest

from cleanctl import api
from cleanctl.config import SelectConfig
from cleanctl.errors import StoreError, UsageError
from cleanctl.registry import SCORERS
from cleanctl.score.recorded import RecordedScorer
from cleanctl.store import Store
from cleanctl.strategy import rules_of

ALL = parts.ALL


@pytest.fixture
def copies(tmp_path):
    """Of one store, so that none finds the scores of another run."""

    def copy(number, **options):
        source = tmp_path / "source.zarr"
        if not source.exists():
            parts.make_store(source, **options)
        return Path(shutil.copytree(source, tmp_path / f"{number}.zarr"))

    return copy


def test_the_strategy_of_these_tests_has_every_scorer_that_is_computed():
    computed = {name for name in SCORERS.names() if not issubclass(SCORERS.load(name), RecordedScorer)}
    assert {rule.scorer for rule in rules_of(SelectConfig(strategy=ALL).tree)} == computed


def test_two_processes_select_with_every_scorer_what_one_selects(copies, recorder):
    alone = parts.selected(copies(1), ALL, temperature=0.05)
    shared = copies(2)
    config = SelectConfig(strategy=ALL, name="one", device="cpu", temperature=0.05, processes=2)
    api.select(config, store=shared, progress=recorder)
    split = Store.open(shared).split("train")
    parts.assert_same_selection(split.read_result("selections", "one").arrays, alone, ALL)
    assert any(note.startswith("2 processes share the 698 rows in blocks of 64") for note in recorder.notes)
    scores = split.results("scores")
    assert {one["parts"] for one in scores.values()} == {2}
    assert all(one["ran"]["parts"] == 2 for one in scores.values() if "ran" in one)


def test_uneven_parts_of_which_most_have_no_row_of_most_classes_select_the_same(copies, quick_spawn):
    """11 blocks in the order of the labels, shared by three."""
    alone = parts.selected(copies(1, by_label=True), "intersection")
    assert 0.1 < alone["keep"].mean() < 0.9
    found = parts.selected(copies(3), "intersection", processes=3)
    parts.assert_same_selection(found, alone, "intersection")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("strategy", "options"),
    [
        ("logistic.loss & logistic.consistency", {"crossfit": 3}),
        ("knn.match & knn.loss", {"neighbors": 20}),
        ("joint", {"temperature": 0.05}),
        ("knn.match & knn.loss", {"knn_index": "ivf", "neighbors": 20}),
        (ALL, {"temperature": 0.05}),
    ],
)
def test_three_processes_select_what_one_selects(copies, strategy, options):
    alone = parts.selected(copies(1, by_label=True), strategy, **options)
    parts.assert_same_selection(parts.selected(copies(3), strategy, processes=3, **options), alone, strategy)


def test_fewer_blocks_than_processes_are_shared_by_fewer(copies, recorder, quick_spawn):
    alone = parts.selected(copies(1, block_rows=384), "zeroshot.loss")
    shared = copies(9)
    config = SelectConfig(strategy="zeroshot.loss", name="one", device="cpu", processes=9)
    api.select(config, store=shared, progress=recorder)
    found = Store.open(shared).split("train")
    assert found.results("scores").popitem()[1]["parts"] == 2
    parts.assert_same_selection(found.read_result("selections", "one").arrays, alone, "zeroshot.loss")
    told = [note for note in recorder.notes if note.startswith("--processes 9: 2 processes share the 698 rows")]
    assert len(told) == 1


def test_no_process_is_started_for_one_block_or_for_scores_that_are_there(copies, recorder, monkeypatch):
    path = copies(1, block_rows=1024)
    monkeypatch.setattr("multiprocessing.get_context", None)
    config = SelectConfig(strategy="zeroshot.loss", device="cpu", processes=2)
    for _ in range(2):
        api.select(config, store=path, progress=recorder)
    told = [note for note in recorder.notes if "--processes" in note]
    assert len(told) == 1
    assert told[0].startswith("--processes 2: one process computes the 698 rows in blocks of 1,024")


def test_a_score_that_needs_all_rows_is_refused_before_anything_is_computed(copies):
    path = copies(1)
    config = SelectConfig(strategy="intersection", compat="paper-code", device="cpu", processes=2)
    with pytest.raises(UsageError, match="logistic as --compat paper-code computes it needs all rows in one process"):
        api.select(config, store=path)
    assert not Store.open(path).split("train").results("scores")


def test_what_one_process_finds_wrong_is_the_runs_error(tmp_path, quick_spawn):
    path = parts.make_store(tmp_path / "s.zarr")
    parts.damage(path)
    with pytest.raises(StoreError, match="embedding"):
        api.select(SelectConfig(strategy="zeroshot.loss", device="cpu", processes=2), store=path)
    assert not multiprocessing.active_children()


# ---- whole commands, in which processes end early


def start(path: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "cleanctl", "select", "--store", str(path), "--device", "cpu", "--processes", "3"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # shells ignore it for what they run behind
    )


def started_by(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """The two others, as soon as they are there: long before they have computed anything."""
    for _ in range(6_000):
        assert process.poll() is None, process.communicate()[1]
        found = [one for one in psutil.Process(process.pid).children() if "spawn_main" in " ".join(one.cmdline())]
        if len(found) == 2:
            return found
        time.sleep(0.01)
    raise AssertionError("the other processes never came")


def wait_until_at_work(others: list[psutil.Process]) -> None:
    """Until they have read what they are to do; before, the end of their parent can only be an error of theirs."""
    for _ in range(6_000):
        if all(os.getsid(one.pid) == one.pid for one in others):
            return
        time.sleep(0.01)
    raise AssertionError("the other processes never began")


def assert_all_gone(others: list[psutil.Process]) -> None:
    _, alive = psutil.wait_procs(others, timeout=60)
    assert alive == []


def test_a_process_that_is_killed_is_one_clear_error_and_leaves_no_other(copies):
    path = copies(1)
    with start(path) as process:
        others = started_by(process)
        others[0].send_signal(signal.SIGKILL)
        _, told = process.communicate(timeout=120)
    assert process.returncode == 1, told
    assert told.count("error:") == 1
    assert "Process 2 of 3 died (signal 9)." in told
    assert "Traceback" not in told
    assert_all_gone(others)
    assert not Store.open(path).split("train").results("selections")
    assert np.count_nonzero(parts.selected(path, "intersection")["keep"]) > 0  # the store is as good as before


def test_ctrl_c_while_processes_start_ends_them_all_in_one_message(copies):
    """A terminal sends it to each of them."""
    with start(copies(1)) as process:
        others = started_by(process)
        os.killpg(process.pid, signal.SIGINT)
        _, told = process.communicate(timeout=120)
    assert process.returncode == 130, told
    assert "Traceback" not in told
    assert_all_gone(others)


@pytest.mark.slow
def test_a_run_that_is_killed_takes_its_processes_with_it(copies):
    with start(copies(1)) as process:
        others = started_by(process)
        wait_until_at_work(others)
        process.kill()
        _, told = process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL, told
    assert "Traceback" not in told
    assert_all_gone(others)
