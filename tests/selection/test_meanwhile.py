"""What select does when another process changes the store while it runs: no result of other labels is kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cleanctl import api
from cleanctl.config import SelectConfig
from cleanctl.errors import StoreError
from cleanctl.progress import SILENT
from cleanctl.score.joint import Joint
from cleanctl.store import Store
from cleanctl.store.locks import writer_lock

ROWS, CLASSES, DIM = 120, 4, 8


class Meanwhile:
    """A Progress that lets something happen when a note with `text` comes."""

    def __init__(self, text, happen):
        self.track, self._text, self._happen, self.happened = SILENT.track, text, happen, False

    def note(self, text):
        if text.startswith(self._text) and not self.happened:
            self.happened = True
            self._happen()

    warn = note


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    label_N, text_PD = rng.integers(0, CLASSES, ROWS), np.eye(DIM, dtype=np.float32)[:CLASSES]
    image_ND = text_PD[label_N] + 0.4 * rng.standard_normal((ROWS, DIM)).astype(np.float32)
    return image_ND, text_PD, label_N


@pytest.fixture
def imported(tmp_path, data, tiny):
    """Imports the first rows with some labels into one store."""
    image_ND, text_PD, _ = data

    def run(label_N: np.ndarray) -> Path:
        return tiny.import_store(
            tmp_path, tuple("abcd"), image=image_ND[: len(label_N)], label=label_N, text=text_PD,
            text_class=np.arange(CLASSES),
        )  # fmt: skip

    return run


@pytest.mark.parametrize("text", ["zeroshot: temperature", "logistic:"])
@pytest.mark.parametrize("change", ["labels", "rows"])
def test_a_selection_of_labels_that_were_replaced_is_not_stored(imported, data, text, change):
    label_N = data[2]
    path = imported(label_N)
    new_N = (label_N + 1) % CLASSES if change == "labels" else label_N[:90]
    progress = Meanwhile(text, lambda: imported(new_N))
    with pytest.raises(StoreError, match=r"labels of split 'train' of .* changed while this ran") as caught:
        api.select(SelectConfig(device="cpu"), store=path, progress=progress)
    assert progress.happened
    assert "Run the same command again" in str(caught.value)
    assert not Store.open(path).split("train").results("selections")
    api.select(SelectConfig(device="cpu"), store=path)
    found = Store.open(path).split("train").read_result("selections", "intersection")
    assert len(found.arrays["keep"]) == len(new_N)
    assert found.attributes["labels"] == Store.open(path).split("train").label_fingerprint()


def test_nothing_is_computed_while_another_process_writes_the_store(imported, data):
    path = imported(data[2])
    notes = []
    progress = Meanwhile("", lambda: None)
    progress.note = notes.append
    with writer_lock(path), pytest.raises(StoreError, match="is being written by another process"):
        api.select(SelectConfig(device="cpu"), store=path, progress=progress)
    assert not [note for note in notes if note.startswith("logistic: preconditioned")]
    assert api.select(SelectConfig(device="cpu"), store=path).kept


def test_a_score_of_an_earlier_rule_is_computed_again(imported, data, monkeypatch):
    store = imported(data[2])
    config = SelectConfig(strategy="joint.posterior", temperature="0.1", device="cpu")
    monkeypatch.setattr(Joint, "revision", 1)
    api.select(config, store=store)
    monkeypatch.undo()
    api.select(config, store=store)
    names = Store.open(store).split("train").scores.attributes()
    assert sorted("revision" in name for name in names) == [False, True]
