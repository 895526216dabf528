"""From a drawn sample through people's verdicts to what `audit` says of a selection."""

from __future__ import annotations

import csv
import json
import shutil

import numpy as np
import pytest
from typer.testing import CliRunner

from cleanctl import api
from cleanctl.cli import app
from cleanctl.config import AuditConfig, ImportConfig, ReviewApplyConfig, ReviewSampleConfig, SelectConfig
from cleanctl.errors import InputError, StoreError, UsageError
from cleanctl.review.audit import count_looks
from cleanctl.store import Store

ROWS, CLASSES = 1200, 4


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A store of arrays with 15 % of the labels wrong, and two selections."""
    root = tmp_path_factory.mktemp("audit")
    rng = np.random.default_rng(0)
    truth_N = rng.integers(0, CLASSES, ROWS)
    label_N = np.where(rng.random(ROWS) < 0.15, (truth_N + 1) % CLASSES, truth_N)
    image_ND = np.eye(CLASSES, 16)[truth_N] + 0.45 * rng.standard_normal((ROWS, 16))
    arrays = {"x": image_ND.astype(np.float32), "y": label_N, "t": np.eye(CLASSES, 16, dtype=np.float32),
              "c": np.arange(CLASSES), "truth": truth_N}  # fmt: skip
    for name, values in arrays.items():
        np.save(root / f"{name}.npy", values)
    files = {"image_embeddings": "x", "labels": "y", "text_embeddings": "t", "text_classes": "c", "truth": "truth"}
    api.import_arrays(
        ImportConfig(**{option: root / f"{name}.npy" for option, name in files.items()}), store=root / "s.zarr"
    )
    for strategy in ("zeroshot.match", "zeroshot.consistency"):
        api.select(SelectConfig(strategy=strategy, device="cpu"), store=root / "s.zarr")
    return root


@pytest.fixture
def root(made, tmp_path):
    shutil.copytree(made / "s.zarr", tmp_path / "s.zarr", symlinks=True)
    return tmp_path


def draw(root, **more):
    config = ReviewSampleConfig(**{"size": 150, "selection": "zeroshot.match", "out": root / "check.csv", **more})
    return api.sample_review(config, store=root / "s.zarr")


def judge(root, *, skip=(), stop=None):
    """Fills in the list as somebody who knows the truth would, and stores it; gives the rows in the order drawn."""
    split = Store.open(root / "s.zarr").split("train")
    right = dict(zip(split.keys(), (split.label_N() == split.truth_N()).tolist()))
    with (root / "check.csv").open() as file:
        rows = list(csv.DictReader(file))
    for place, row in enumerate(rows[:stop]):
        row["verdict"] = "skip" if place in skip else "keep" if right[row["key"]] else "drop"
    with (root / "check.csv").open("w") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    api.apply_review(ReviewApplyConfig(files=(root / "check.csv",)), store=root / "s.zarr")
    return rows


def audit(root, **more):
    return api.audit(AuditConfig(**more), store=root / "s.zarr")


def truth(root, selection):
    split = Store.open(root / "s.zarr").split("train")
    right, keep = split.label_N() == split.truth_N(), split.selections.read(selection).unreviewed
    return {"noise": 1 - right.mean(), "precision": right[keep].mean(), "recall": keep[right].mean()}


def require_covered(report, actual):
    for quantity, value in actual.items():
        found = getattr(report, quantity)
        assert found.low <= value <= found.high, quantity
        assert found.low <= found.value <= found.high, quantity


def test_an_audit_finds_the_truth_of_the_selection_and_of_another_by_the_same_looks(root):
    drawn = draw(root)
    assert drawn.size == 150 == sum(one.looks for one in drawn.strata)
    assert drawn.labels == ROWS == sum(one.size for one in drawn.strata)
    judge(root)
    report = audit(root)
    assert (report.looks, report.undecided, report.waiting) == (150, 0, 0)
    assert report.selection == "zeroshot.match"
    require_covered(report, truth(root, "zeroshot.match"))
    other = audit(root, selection="zeroshot.consistency")
    require_covered(other, truth(root, "zeroshot.consistency"))
    assert other.kept != report.kept
    assert other.noise.value == pytest.approx(report.noise.value, abs=0.02)


def test_looks_are_drawn_by_joint_where_it_ran_and_correct_what_it_says(root):
    joint = SelectConfig(strategy="joint", temperature=0.3, device="cpu")
    before = api.select(joint, store=root / "s.zarr")
    drawn = draw(root, selection="joint")
    assert (drawn.score, drawn.selection) == ("joint", "joint")
    judge(root)
    after = api.select(joint, store=root / "s.zarr")
    assert before.expected.verdicts == 0
    assert after.expected.verdicts == 150
    right = truth(root, "joint")
    report = audit(root, selection="joint")
    require_covered(report, right)
    assert after.expected.precision == pytest.approx(right["precision"], abs=0.05)


def test_verdicts_that_a_selection_obeys_do_not_flatter_it(root):
    draw(root)
    judge(root)
    before = audit(root)
    api.select(SelectConfig(strategy="zeroshot.match", device="cpu"), store=root / "s.zarr")
    after = audit(root, selection="zeroshot.match")
    assert after.without_verdicts > 0
    assert (after.precision, after.recall, after.kept) == (before.precision, before.recall, before.kept)


def test_skips_and_looks_that_are_missing_widen_the_intervals(root):
    draw(root)
    judge(root, skip=(3, 40, 77), stop=100)
    report = audit(root)
    assert (report.undecided, report.waiting, report.looks) == (3, 50, 100)
    require_covered(report, truth(root, "zeroshot.match"))
    judge(root)
    whole = audit(root)
    assert (whole.undecided, whole.waiting) == (0, 0)
    for quantity in ("noise", "precision", "recall"):
        some, all_ = getattr(report, quantity), getattr(whole, quantity)
        assert some.high - some.low > all_.high - all_.low


def test_a_label_that_was_left_out_in_the_middle_counts_as_undecided():
    stratum_N, keep_N = np.array([0] * 6 + [-1]), np.ones(7, bool)
    looks, waiting = count_looks(stratum_N, keep_N, np.array([0, 1, 2, 3]), np.array([1, 0, 2, 0]))
    assert (looks.right_GH.item(), looks.wrong_GH.item(), looks.unknown_GH.item(), waiting) == (1, 1, 1, 1)
    assert looks.size_H.tolist() == [6]


def test_one_seed_draws_one_sample_and_the_store_keeps_its_chances(root):
    first = draw(root)
    listed = (root / "check.csv").read_text()
    split = Store.open(root / "s.zarr").split("train")
    sample = split.samples.read("audit")
    assert np.count_nonzero(sample.place) == 150
    assert sample.arrays["chance"].sum() == pytest.approx(150, abs=1e-3)
    with pytest.raises(StoreError, match="has a sample 'audit' already"):
        draw(root)
    assert draw(root, replace=True) == first
    assert (root / "check.csv").read_text() == listed
    draw(root, replace=True, seed=1)
    assert (root / "check.csv").read_text() != listed


def test_the_page_holds_the_drawn_labels_alone(root):
    drawn = draw(root, out=None)
    page = (root / "s.audit.html").read_text()
    assert drawn.out == str(root / "s.audit.html")
    assert "150 labels were drawn" in page
    assert "cleanctl audit" in page


def test_what_cannot_be_audited_is_told(root):
    with pytest.raises(StoreError, match="has no sample named 'audit'; it has: none"):
        audit(root)
    draw(root)
    with pytest.raises(StoreError, match="Nobody looked at any of the 150 labels"):
        audit(root)
    (root / "mine.html").write_text("mine")
    with pytest.raises(InputError, match="no report wrote it"):
        draw(root, name="second", out=root / "mine.html")
    with pytest.raises(InputError, match=r"check\.csv exists"):
        draw(root, name="second")
    split = Store.open(root / "s.zarr").split("train")
    assert list(split.samples.attributes()) == ["audit"]
    with pytest.raises(UsageError, match=r"\.html or \.csv"):
        draw(root, out=root / "list.txt")


def test_the_command_line_says_the_numbers_and_what_they_assume(root):
    store = ["--store", str(root / "s.zarr")]
    runner = CliRunner()
    shown = runner.invoke(app, ["review", "sample", "--size", "120", "--out", str(root / "check.csv"), *store])
    assert shown.exit_code == 0, shown.output
    judge(root)
    shown = runner.invoke(app, ["audit", *store])
    said = " ".join(shown.output.split())
    assert "(95 % interval: " in said
    assert "Estimated from 120 looks" in said
    assert "Nothing is assumed of the noise" in said
    told = json.loads(runner.invoke(app, ["audit", "--json", *store]).stdout)
    assert told["precision"]["low"] <= told["precision"]["value"] <= told["precision"]["high"]
    assert told["drawn"] == 120
