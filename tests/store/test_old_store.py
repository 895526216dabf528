"""A store that commit f964ff2 wrote, before arrays had checksums: 48 rows of `train`, complete, with a failed row, a
score and the selection `old`; `half`, stopped after 20 of 48 rows. It opens and goes on; what is written has checksums.
"""

from __future__ import annotations

import tarfile
from pathlib import Path

import numpy as np
import pytest

from cleanctl.api import evaluate, select
from cleanctl.config import EvalConfig, SelectConfig
from cleanctl.errors import StoreError
from cleanctl.records import SplitManifest
from cleanctl.store import Store, schema
from cleanctl.store.arrays import is_checked

STRATEGY = "zeroshot.loss & zeroshot.match"


@pytest.fixture
def old(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(schema, "BLOCK_ROWS", 65_536)
    monkeypatch.setattr(schema, "CHUNK_ROWS", 4_096)
    with tarfile.open(Path(__file__).with_name("old_store.tar.xz")) as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path / "old.zarr"


def manifest(store: Store, name: str) -> SplitManifest:
    split = store.split(name)
    return SplitManifest(split=name, keys=split.keys(), label_N=split.label_N(), truth_N=split.truth_N())


def test_it_is_selected_from_and_measured(old):
    split = Store.open(old).split("train")
    before = split.selections.read("old")
    assert int(before.keep.sum()) == 38
    assert split.failures() == {0: "truncated"}
    measured = evaluate(EvalConfig(), store=old).selection
    assert measured.name == "old"
    assert measured.found.precision > 0.9
    select(SelectConfig(strategy=STRATEGY, name="new", device="cpu"), store=old)
    split = Store.open(old).split("train")
    after = split.selections.read("new")
    assert (after.keep == before.keep).all()
    assert (after.suggested == before.suggested).all()
    assert list(split.selections.attributes()) == ["old", "new"]
    keep = split._group["selections/new/keep"]
    assert is_checked(keep)


def test_embedding_goes_on_and_joins(old):
    store = Store.open(old)
    train, half = (manifest(store, name) for name in ("train", "half"))
    with store.write_split(train, dim=8, fingerprints=store.split("train").fingerprints()) as writer:
        assert len(writer.pending_rows()) == 0
        writer.finish()
    assert store.finish_split(train).size == 0
    assert store.finish_split(half).tolist() == list(range(20, 48))
    assert not (old / ".lock").exists(), "locks lie beside the store"
    with pytest.raises(StoreError, match="20 of 48 rows are embedded"):
        store.split("half").require_complete()


@pytest.mark.parametrize("name", ["status/c/0", "embedding/c/0/0", "label/c/0", "zarr.json"])
def test_damage_that_shows_without_checksums_is_repaired(old, name):
    store = Store.open(old)
    wanted, files = manifest(store, "train"), store.split("train").fingerprints()
    (old / "train" / name).write_bytes(b"")
    with pytest.raises(StoreError, match="embed again"):
        [*store.split("train").blocks(), store.split("train").label_N()]
    with store.write_split(wanted, dim=8, fingerprints=files) as writer:
        row = writer.pending_rows()
        writer.put(row, np.eye(8, dtype=np.float16)[row % 8])
        writer.finish()
    split = store.split("train")
    assert split.complete
    assert split.label_N().tolist() == wanted.label_N.tolist()
    assert is_checked(split._group["label"]) == (name == "label/c/0")
