"""select, train, export, eval, diff and status obey people's verdicts, and --ignore-review leaves them out."""

from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from cleanctl import api
from cleanctl.cli import app
from cleanctl.config import (
    DiffConfig,
    EvalConfig,
    ExportConfig,
    ImportConfig,
    ReviewApplyConfig,
    ReviewRemoveConfig,
    SelectConfig,
    TrainConfig,
)
from cleanctl.store import Store
from cleanctl.train.dynamics import _empty, spread
from cleanctl.train.methods.method import Setup
from cleanctl.train.methods.mixfix import by_recipe
from cleanctl.train.pool import find_pool
from cleanctl.train.recipe import load_recipe

CLASSES = ("cat", "dog", "owl")
COUNT = 60
TRUTH = np.arange(COUNT) % 3
GIVEN = np.where(np.arange(COUNT) % 5 == 0, (TRUTH + 1) % 3, TRUTH)  # rows 0, 5, 10, … are labelled wrong
KEY = [f"{row:03d}.jpg" for row in range(COUNT)]
KEPT_WRONGLY, DROPPED_WRONGLY, TO_CORRECT = KEY[10], KEY[7], KEY[20]


@pytest.fixture
def store(tmp_path):
    """60 rows, prompts that tell the classes apart; zeroshot.match drops the wrong labels, but errs on two rows."""
    rng = np.random.default_rng(0)
    image = np.eye(3, 8)[TRUTH] + 0.05 * rng.standard_normal((COUNT, 8))
    image[10], image[7] = np.eye(3, 8)[GIVEN[10]], np.eye(3, 8)[(GIVEN[7] + 1) % 3]
    np.save(tmp_path / "x.npy", image.astype(np.float32))
    np.save(tmp_path / "y.npy", GIVEN)
    np.save(tmp_path / "truth.npy", TRUTH)
    np.save(tmp_path / "t.npy", np.eye(3, 8, dtype=np.float32))
    np.save(tmp_path / "c.npy", np.arange(3))
    (tmp_path / "k.txt").write_text("\n".join(KEY))
    (tmp_path / "names.txt").write_text("\n".join(CLASSES))
    named = {"image_embeddings": "x.npy", "labels": "y.npy", "text_embeddings": "t.npy", "text_classes": "c.npy"}
    named |= {"keys": "k.txt", "classes": "names.txt", "truth": "truth.npy"}
    config = ImportConfig(**{option: tmp_path / name for option, name in named.items()})
    api.import_arrays(config, store=tmp_path / "s.zarr")
    return tmp_path / "s.zarr"


def select(store, name="mine", **more):
    config = SelectConfig(strategy="zeroshot.match", name=name, device="cpu", **more)
    return api.select(config, store=store)


def decide(store, *lines):
    file = store.parent / "verdicts.csv"
    file.write_text("key,verdict,label,by\n" + "\n".join(f"{line},ann" for line in lines))
    api.apply_review(ReviewApplyConfig(files=(file,)), store=store)


def decide_three(store):
    right = CLASSES[TRUTH[20]]
    decide(store, f"{KEPT_WRONGLY},drop,", f"{DROPPED_WRONGLY},keep,", f"{TO_CORRECT},relabel,{right}")


def table(store, name="mine"):
    return {row["key"]: row for row in api.read_selection(store, name).to_pylist()}


def test_select_keeps_drops_and_relabels_as_people_say(store):
    before = select(store, "before")
    decide_three(store)
    summary = select(store)
    old, new = table(store, "before"), table(store)
    assert (old[KEPT_WRONGLY]["keep"], old[DROPPED_WRONGLY]["keep"], old[TO_CORRECT]["keep"]) == (True, False, False)
    assert (new[KEPT_WRONGLY]["keep"], new[DROPPED_WRONGLY]["keep"], new[TO_CORRECT]["keep"]) == (False, True, True)
    decided = {key: (row["verdict"], row["verdict_name"]) for key, row in new.items() if row["verdict"]}
    given = CLASSES[GIVEN[7]]
    assert decided == {
        KEPT_WRONGLY: ("drop", None),
        DROPPED_WRONGLY: ("keep", given),
        TO_CORRECT: ("relabel", CLASSES[TRUTH[20]]),
    }
    evidence = ["key", "label", "suggested_label", "p_label", "zeroshot.match.keep"]
    assert [[row[name] for name in evidence] for row in old.values()] == [
        [row[name] for name in evidence] for row in new.values()
    ]
    assert summary.kept == before.kept + 1
    assert before.review is None
    found = summary.review
    assert (found.keep, found.drop, found.relabel, found.newly_kept, found.newly_dropped) == (1, 1, 1, 2, 1)


def test_select_without_review_is_as_if_nobody_had_decided(store):
    select(store, "before")
    decide_three(store)
    ignoring = select(store, "ignoring", ignore_review=True)
    assert ignoring.review is None
    assert table(store, "ignoring") == table(store, "before")
    pool = find_pool(Store.open(store), TrainConfig(selection="ignoring"))
    assert len(pool.row_M) == COUNT  # it stays as it was made


def test_a_class_that_people_emptied_is_not_filled_with_what_they_dropped(store):
    owls = np.flatnonzero(GIVEN == 2)
    decide(store, *(f"{KEY[row]},drop," for row in owls[1:]))
    select(store)
    kept = {key for key, row in table(store).items() if row["keep"] and row["label"] == 2}
    assert kept == {KEY[owls[0]]}


@pytest.mark.parametrize("later", [False, True])
def test_train_learns_from_what_people_decided(store, later):
    """later: the verdicts come after the selection."""
    if later:
        select(store)
    decide_three(store)
    if not later:
        select(store)
    opened = Store.open(store)
    pool = find_pool(opened, TrainConfig())
    keys = [KEY[row] for row in pool.row_M]
    assert KEPT_WRONGLY not in keys  # not even to be absorbed
    assert len(keys) == COUNT - 1
    here = keys.index(TO_CORRECT)
    assert (pool.label_M[here], pool.given_M[here], pool.selected_M[here]) == (TRUTH[20], GIVEN[20], True)
    assert pool.selected_M[keys.index(DROPPED_WRONGLY)]
    ignoring = find_pool(opened, TrainConfig(ignore_review=True))
    assert len(ignoring.row_M) == COUNT
    assert (ignoring.label_M == GIVEN).all()
    assert not ignoring.selected_M[20]
    assert ignoring.fingerprint() != pool.fingerprint()
    everything = find_pool(opened, TrainConfig(selection="all"))
    assert everything.selected_M.all()
    assert len(everything.row_M) == COUNT - 1


def test_no_network_corrects_a_label_that_a_person_gave():
    label, fixed = np.array([0, 0, 1]), np.array([True, False, False])
    setup = Setup(
        recipe=load_recipe("cpu-small"), num_classes=3, compute=None, label_M=label,
        selected_M=np.array([True, True, True]), fixed_M=fixed,
    )  # fmt: skip
    members = by_recipe(setup, np.array([2, 2, 1]), np.ones(3, np.float32))
    assert members.label_M.tolist() == [0, 2, 1]
    assert members.member_M.all()


def test_dynamics_of_rows_that_people_dropped_were_never_seen():
    sums = {**_empty(3), "epochs": 2}
    sums["seen"][:] = 2
    wide = spread(sums, np.array([1, 4, 9]), np.array([1, 2, 4, 9]))
    assert wide["seen"].tolist() == [2, 0, 2, 2]
    assert wide["epochs"] == 2


def test_export_writes_the_labels_that_people_gave(store):
    select(store)
    decide_three(store)
    out = store.parent / "kept.parquet"
    # A suggestion above the threshold changes no label that a person confirmed, and brings back none they dropped.
    done = api.export(ExportConfig(out=out, relabel=0.0), store=store)
    rows = {row["key"]: row for row in pq.read_table(out).to_pylist()}
    assert KEPT_WRONGLY not in rows
    assert rows[DROPPED_WRONGLY]["label"] == rows[DROPPED_WRONGLY]["given_label"] == GIVEN[7]
    assert (rows[TO_CORRECT]["label"], rows[TO_CORRECT]["given_label"]) == (TRUTH[20], GIVEN[20])
    assert {key: row["verdict"] for key, row in rows.items() if row["verdict"]} == {
        DROPPED_WRONGLY: "keep",
        TO_CORRECT: "relabel",
    }
    assert done.relabelled == sum(row["label"] != row["given_label"] for row in rows.values())
    ignoring = store.parent / "ignoring.parquet"
    api.export(ExportConfig(out=ignoring, ignore_review=True), store=store)
    assert KEPT_WRONGLY in pq.read_table(ignoring)["key"].to_pylist()


def test_eval_judges_the_selection_with_what_people_decided(store):
    select(store)
    decide_three(store)
    ignoring = api.evaluate(EvalConfig(ignore_review=True, device="cpu"), store=store)
    obeying = api.evaluate(EvalConfig(device="cpu"), store=store)
    assert (ignoring.selection.verdicts, obeying.selection.verdicts) == (0, 3)
    assert ignoring.selection.found.precision < 1
    assert obeying.selection.found.precision == 1
    assert obeying.selection.found.recall == 1  # the corrected label counts as right
    assert obeying.selection.noise == ignoring.selection.noise
    assert obeying.selection.rules == ignoring.selection.rules
    assert any("3 verdicts of people" in note for note in obeying.notes)


def test_diff_says_what_verdicts_changed_and_adds_up(store):
    select(store, "before")
    decide_three(store)
    select(store)
    found = api.diff(DiffConfig(first="before", second="mine"), store=store)
    told = {(one.dropped_by, one.reason): one.samples for one in found.reasons}
    assert told == {
        ("second", "the verdict drop"): 1,
        ("first", "only mine obeys the verdict keep"): 1,
        ("first", "only mine obeys the verdict relabel"): 1,
    }
    assert sum(told.values()) == found.only_first + found.only_second


def test_status_tells_of_verdicts_that_a_selection_does_not_know(store):
    select(store)
    fresh = api.status(store=store).splits[0]
    assert (fresh.verdicts, fresh.selections[0].newer_verdicts) == (None, 0)
    decide_three(store)
    report = api.status(store=store)
    assert report.splits[0].selections[0].newer_verdicts == 3
    assert (report.splits[0].verdicts.keep, report.splits[0].verdicts.relabel) == (1, 1)
    assert report.following[0].startswith("cleanctl select --strategy zeroshot.match --name mine")
    select(store)
    assert api.status(store=store).splits[0].selections[0].newer_verdicts == 0
    api.remove_review(ReviewRemoveConfig(keys=(KEPT_WRONGLY,)), store=store)
    assert api.status(store=store).splits[0].selections[0].newer_verdicts == 1
    shown = CliRunner().invoke(app, ["status", "--store", str(store)])
    assert "does not know 1 verdicts" in shown.output
    assert find_pool(Store.open(store), TrainConfig()).selected_M[10]  # as the strategy decided
