"""`evaluate_store` on a real store: numbers that can be worked out by hand, and a reason for each that is missing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from cleanctl.config import EvalConfig
from cleanctl.errors import StoreError
from cleanctl.evaluate import evaluate_store
from cleanctl.files.fingerprints import no_fingerprints
from cleanctl.paths import runs_dir
from cleanctl.records import KNOWN_WRONG, Fingerprints, ImageBatch, PixelSpec, SplitManifest, TextEmbeddings
from cleanctl.store import Store
from cleanctl.train.pool import find_tests
from cleanctl.train.rundir import write_json

CLASSES = ("a", "b")
TRUTH = np.array([0, 0, 1, 1, -1, 0], np.int32)
LABEL = np.array([0, 1, 1, 0, 0, 0], np.int32)  # rows 1 and 3 are wrong; 4 is unknown, 5 has no embedding

SELECTION = {
    "keep": np.array([1, 1, 0, 0, 1, 0], bool),
    "zeroshot.loss.score": np.array([0.9, 0.9, 0.8, 0.1, 0.5, np.nan], np.float32),
    "zeroshot.loss.keep": np.array([1, 1, 1, 0, 1, 0], bool),
}


class LabelledPixels:
    """Images whose first byte is their row; row 2 has become unreadable."""

    name = "memory"
    closed = False

    def batches(self, row_N: np.ndarray, *, batch_size: int) -> Iterator[ImageBatch]:
        for at in range(0, len(row_N), batch_size):
            row = row_N[at : at + batch_size]
            pixel = np.zeros((len(row), 8, 8, 3), np.uint8)
            pixel[:, 0, 0, 0] = row
            gone = dict.fromkeys(row[row == 2], "gone")
            fingerprints = no_fingerprints(len(row))
            yield ImageBatch(row_B=row, pixel_BSSC=pixel, ok_B=row != 2, reason=gone, fingerprints=fingerprints)

    def close(self) -> None:
        self.closed = True


class RowParity:
    """A classifier that calls even rows a and odd rows b."""

    name, method, selection, epoch = "parity", "mixfix", "s", 3
    chosen_on = "val"
    classes: tuple[str, ...] = CLASSES
    pixels = PixelSpec(size=8)

    def logits(self, pixel_BSSC: np.ndarray) -> np.ndarray:
        odd = pixel_BSSC[:, 0, 0, 0] % 2
        return np.stack([1 - odd, odd], axis=1).astype(np.float32)


def write(store: Store, name: str, label: np.ndarray, truth: np.ndarray | None) -> None:
    count = len(label)
    manifest = SplitManifest(split=name, keys=[f"{k:02}" for k in range(count)], label_N=label, truth_N=truth)
    fingerprints = Fingerprints(
        digest_N16=np.ones((count, 16), np.uint8), size_N=np.ones(count, np.int64), mtime_ns_N=np.ones(count, np.int64)
    )
    embedding = np.eye(2, dtype=np.float16)[label]  # zero-shot repeats the given labels
    with store.write_split(manifest, dim=2, fingerprints=fingerprints) as writer:
        good = np.arange(count - 1) if name == "train" else np.arange(count)
        writer.put(good, embedding[good])
        if name == "train":
            writer.fail(np.array([count - 1]), ["truncated"])
        writer.finish()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store.create(tmp_path / "s.zarr", classes=CLASSES, encoder={}, source={"root": "x"})
    write(store, "train", LABEL, TRUTH)
    write(store, "test", np.array([0, 1, 0, 0], np.int32), None)
    text = TextEmbeddings(
        embedding_PD=np.eye(2, dtype=np.float32), class_P=np.array([0, 1], np.int32), prompts=("a", "b")
    )
    store.write_text(text, {"prompts": "test"})
    store.split("train").write_result("selections", "s", SELECTION, {})
    run = runs_dir(store.path) / "parity"
    run.mkdir(parents=True)
    write_json(run / "result.json", {"best_epoch": 1})
    return store


def evaluate(store: Store, **options: object) -> dict:
    report = evaluate_store(
        store,
        EvalConfig(device="cpu", batch_size=3, **options),  # type: ignore[arg-type]
        loader_factory=lambda split, spec: LabelledPixels(),
        open_run=lambda folder, checkpoint, device: RowParity(),
    )
    return report.to_json()


def test_selection_quality_leaves_out_failed_rows_and_unknown_truth(store: Store) -> None:
    quality = evaluate(store)["selection"]
    assert quality["noise"] == 0.5
    assert quality["found"] == {"count": 4, "clean": 2, "kept": 2, "precision": 0.5, "recall": 0.5, "f1": 0.5}
    (rule,) = quality["rules"]
    assert rule["found"]["precision"] == pytest.approx(2 / 3)
    assert rule["auc"] == 0.625  # clean .9 .8 against wrong .9 .1: a tie, a win, a loss and a win
    assert rule["auc_raw"] == rule["auc"]
    assert rule["auc_scaled"] == 0.5  # inside each class the best is 1 and the worst 0: clean 1 0, wrong 1 0


def test_a_label_known_to_be_wrong_counts_though_nobody_knows_the_right_one(tmp_path: Path) -> None:
    store = Store.create(tmp_path / "k.zarr", classes=CLASSES, encoder={}, source={"root": "x"})
    write(store, "train", LABEL, np.where(LABEL == TRUTH, TRUTH, np.where(TRUTH < 0, -1, KNOWN_WRONG)))
    store.split("train").write_result("selections", "s", SELECTION, {})
    quality = evaluate(store)["selection"]
    assert quality["noise"] == 0.5
    assert quality["found"] == {"count": 4, "clean": 2, "kept": 2, "precision": 0.5, "recall": 0.5, "f1": 0.5}


def test_zero_shot_is_counted_against_the_truth_where_it_is_known(store: Store) -> None:
    train, test = sorted(evaluate(store)["zero_shot"], key=lambda line: line["split"], reverse=True)
    assert (train["split"], train["against"], train["pooled"]["count"], train["pooled"]["top1"]) == (
        "train", "truth", 4, 0.5,
    )  # fmt: skip
    assert (test["against"], test["nearest"]["top1"]) == ("labels", 1.0)


def test_a_run_is_tested_on_the_readable_images_best_and_last(store: Store) -> None:
    lines = evaluate(store)["runs"]
    assert [(line["checkpoint"], line["split"]) for line in lines] == [("best", "test"), ("last", "test")]
    assert {line["chosen_on"] for line in lines} == {"val"}
    for line in lines:  # rows 0, 1, 3 with labels 0, 1, 0 are called 0, 1, 1
        assert line["accuracy"]["count"] == 3
        assert line["accuracy"]["top1"] == pytest.approx(2 / 3)
        assert line["accuracy"]["per_class"] == (0.5, 1.0)
        assert line["accuracy"]["seen"] == (2, 1)
        assert line["accuracy"]["confusion"] == {"actual": (0,), "predicted": (1,), "samples": (1,)}
        assert line["against"] == "labels"


def test_ilsvrcs_images_are_a_test_set_of_their_own_and_choose_no_epoch(store: Store) -> None:
    write(store, "ilsvrc", np.array([0, 0], np.int32), None)
    lines = [line for line in evaluate(store)["runs"] if line["split"] == "ilsvrc"]
    assert [(line["checkpoint"], line["chosen_on"]) for line in lines] == [("best", "val"), ("last", "val")]
    assert {(line["accuracy"]["count"], line["accuracy"]["top1"]) for line in lines} == {(2, 0.5)}
    assert find_tests(store.split_names()).test == "test"


def test_a_run_with_other_classes_is_refused(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RowParity, "classes", ("b", "a"))
    with pytest.raises(StoreError, match="knows the classes b, a"):
        evaluate(store)


def test_what_cannot_be_measured_is_said(tmp_path: Path) -> None:
    bare = Store.create(tmp_path / "bare.zarr", classes=CLASSES, encoder={}, source={})
    write(bare, "train", LABEL, None)
    report = evaluate(bare)
    assert report["selection"] is None
    assert report["zero_shot"] == report["runs"] == ()
    said = " ".join(report["notes"])
    assert "No selection yet" in said
    assert "no text embeddings" in said
    assert "No finished run" in said


def test_a_selection_that_is_named_and_absent_is_an_error(store: Store) -> None:
    with pytest.raises(StoreError, match="'other'"):
        evaluate(store, selection="other")
