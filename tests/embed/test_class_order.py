"""Two orders of class names in use: embedding ends by telling which of them the images fit."""

from __future__ import annotations

import numpy as np
import pytest
from published_copy import copies

from cleanctl import api
from cleanctl.config import EmbedConfig
from cleanctl.embed.class_order import tell_class_order
from cleanctl.files.local import LocalStorage
from cleanctl.records import Dataset, Fingerprints, OtherOrder, SplitManifest, TextEmbeddings
from cleanctl.store import Store

CLASSES = ("cat", "jaguar", "cheetah")
SHOWN = np.array([0, 0, 1, 1, 1, 2, 2, 2])  # what each image shows, as a name of CLASSES


def told(folder, recorder, label_N: np.ndarray, *, split: str = "test"):
    store = Store.create(folder / "s.zarr", classes=CLASSES, encoder={}, source={"root": "x"})
    manifest = SplitManifest(split=split, keys=[f"{k}" for k in range(8)], label_N=label_N.astype(np.int32))
    fingerprints = Fingerprints(
        digest_N16=np.ones((8, 16), np.uint8), size_N=np.ones(8, np.int64), mtime_ns_N=np.ones(8, np.int64)
    )
    with store.write_split(manifest, dim=3, fingerprints=fingerprints) as writer:
        writer.put(np.arange(7), np.eye(3, dtype=np.float16)[SHOWN[:7]])
        writer.fail(np.array([7]), ["truncated"])
        writer.finish()
    text = TextEmbeddings(
        embedding_PD=np.eye(3, dtype=np.float32), class_P=np.arange(3, dtype=np.int32), prompts=CLASSES
    )
    store.write_text(text, {})
    other = OtherOrder(classes=("cat", "cheetah", "jaguar"), option="--variant swapped")
    dataset = Dataset(
        files=LocalStorage(str(folder)), layout="x", classes=CLASSES, splits=(manifest,), other_order=other
    )
    tell_class_order(store, dataset, device="cpu", progress=recorder)
    return recorder


def test_labels_that_fit_the_given_order_are_noted(tmp_path, recorder):
    recorder = told(tmp_path, recorder, np.array([0, 0, 1, 1, 2, 2, 2, 2]))  # one is wrong: 6 of 7, swapped 3 of 7
    assert recorder.warnings == []
    assert recorder.notes == [
        "Zero-shot accuracy on test is 85.7 % with 1 jaguar, 2 cheetah, and 42.9 % with 1 cheetah, 2 jaguar: the order "
        "is kept."
    ]


def test_labels_that_fit_the_other_order_are_warned_of_with_the_option(tmp_path, recorder):
    recorder = told(tmp_path, recorder, np.array([0, 0, 2, 2, 2, 1, 2, 1]), split="train")
    assert recorder.notes == []
    (warning,) = recorder.warnings
    assert "on train is 42.9 % with 1 jaguar, 2 cheetah, and 85.7 % with 1 cheetah, 2 jaguar" in warning
    assert "--variant swapped" in warning


@pytest.mark.parametrize("variant", [None, "cheetah-jaguar"])
def test_embedding_animal10n_tells_the_accuracy_of_both_orders(tmp_path, model_dir, recorder, variant):
    next(copy for copy in copies() if copy.dataset == "animal10n").build(tmp_path / "a")
    config = EmbedConfig(
        source=tmp_path / "a", variant=variant, splits=("test",), model=f"local-dir:{model_dir}", prompts="photo",
        loader="torch", workers=0, device="cpu",
    )  # fmt: skip
    api.embed(config, store=tmp_path / "s.zarr", progress=recorder)
    (one,) = [text for text in recorder.notes + recorder.warnings if text.startswith("Zero-shot accuracy")]
    given, other = ("4 jaguar, 5 cheetah", "4 cheetah, 5 jaguar")[:: 1 if variant is None else -1]
    assert one.index(given) < one.index(other)
