"""`diff` of selections that `select` made: every sample that differs has one reason, and the counts add up."""

from __future__ import annotations

import json
import tracemalloc

import numpy as np
import pyarrow.csv as pc
import pytest
from typer.testing import CliRunner

from cleanctl import api
from cleanctl.cli import app
from cleanctl.config import DiffConfig, SelectConfig
from cleanctl.errors import StoreError
from cleanctl.selection.diff import compare
from cleanctl.store.stored import StoredSelection


@pytest.fixture(scope="module")
def store(tmp_path_factory, tiny):
    """900 rows of three overlapping classes, a fifth of them with another label."""
    folder = tmp_path_factory.mktemp("diff")
    rng = np.random.default_rng(1)
    truth = np.arange(900) % 3
    label = np.where(rng.random(900) < 0.2, (truth + 1) % 3, truth)
    image = np.eye(3, 8)[truth] + 0.35 * rng.standard_normal((900, 8))
    path = tiny.import_store(
        folder, ("cat", "dog", "owl"), image=image, label=label, text=np.eye(3, 8), text_class=np.arange(3)
    )
    for strategy in ("intersection", "union", "zeroshot.match", "~zeroshot.match"):
        api.select(SelectConfig(strategy=strategy), store=path)
    api.select(SelectConfig(strategy="zeroshot.similarity", theta_similarity=1.0, name="topped"), store=path)
    return path


PAIRS = [("intersection", "union"), ("zeroshot.match", "intersection"), ("zeroshot.match", "~zeroshot.match"),
         ("topped", "zeroshot.match")]  # fmt: skip


@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_every_sample_that_differs_has_one_reason(store, first, second, tmp_path):
    report = api.diff(DiffConfig(first=first, second=second), store=store, out=tmp_path / "changed.csv")
    keep = {name: np.array(api.read_selection(store, name)["keep"]) for name in (first, second)}
    differ = keep[first] != keep[second]
    assert report.only_first + report.only_second == differ.sum() > 0
    assert report.both + report.only_first + report.only_second + report.neither == report.count == 900
    assert sum(one.samples for one in report.reasons) == differ.sum()
    assert sum(one.only_first + one.only_second for one in report.classes) == differ.sum()
    table = pc.read_csv(tmp_path / "changed.csv")
    keys = np.array(api.read_selection(store, first)["key"])
    assert table["key"].to_pylist() == keys[differ].tolist()
    assert set(table["kept_by"].to_pylist()) <= {first, second}


def test_the_reason_names_the_rules_that_say_no(store, tmp_path):
    api.diff(DiffConfig(first="intersection", second="union"), store=store, out=tmp_path / "changed.parquet")
    import pyarrow.parquet as pq

    rows = pq.read_table(tmp_path / "changed.parquet").to_pylist()
    full = {row["key"]: row for row in api.read_selection(store, "intersection").to_pylist()}
    rules = [name.removesuffix(".keep") for name in next(iter(full.values())) if name.endswith(".keep")]
    for row in rows[::7]:
        refusing = [rule for rule in rules if not full[row["key"]][f"{rule}.keep"]]
        assert refusing
        assert row["reason"] == ", ".join(refusing) + (" says no" if len(refusing) == 1 else " say no")


def test_a_fallback_and_a_complement_are_reasons_of_their_own(store):
    topped = api.diff(DiffConfig(first="topped", second="~zeroshot.match"), store=store)
    assert "only topped's fallback keeps it" in {one.reason for one in topped.reasons}
    opposite = api.diff(DiffConfig(first="~zeroshot.match", second="zeroshot.match"), store=store)
    assert "strategy ~zeroshot.match" in {one.reason for one in opposite.reasons}


def test_reasons_of_many_rows_are_numbers_and_not_words():
    """At 10⁷ rows their words would be gigabytes."""
    rows = 100_000
    keep_N = np.arange(rows) % 2 == 0

    def selection(name, keep_N):
        columns = {"keep": keep_N, "zeroshot.match.score": np.zeros(rows, np.float32), "zeroshot.match.keep": keep_N}
        return StoredSelection(name=name, arrays=columns, attributes={"strategy": "zeroshot.match"})

    first, second = selection("first", keep_N), selection("second", ~keep_N)
    compare(first, second)  # imports
    tracemalloc.start()
    try:
        found = compare(first, second)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found.reasons == (("first", "zeroshot.match says no"), ("second", "zeroshot.match says no"))
    assert found.reason_N.tolist() == [1, 0] * (rows // 2)
    assert peak < 60 * rows, peak / rows


def test_the_command_line_tells_the_same_and_equal_selections_do_not_differ(store):
    said = CliRunner().invoke(app, ["diff", "intersection", "union", "--store", str(store), "--json"])
    record = json.loads(said.stdout)
    expected = api.diff(DiffConfig(first="intersection", second="union"), store=store).to_json()
    assert record == json.loads(json.dumps(expected))
    shown = CliRunner().invoke(app, ["diff", "intersection", "union", "--store", str(store)]).stdout
    assert f"{record['only_second']:,}" in shown
    assert api.diff(DiffConfig(first="union", second="union"), store=store).reasons == ()


def test_what_is_not_there_is_an_error(store):
    with pytest.raises(StoreError, match="no selection named 'none'"):
        api.diff(DiffConfig(first="union", second="none"), store=store)
    assert CliRunner().invoke(app, ["diff", "union", "--store", str(store)]).exit_code == 2
