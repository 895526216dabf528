"""A selection made on a GPU is that of a CPU, and two processes may share one card. `cpu:0` is the path of a GPU on
torch's own CPU, so that it runs where there is no card."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cleanctl.config import SelectConfig
from cleanctl.records import Fingerprints, SplitManifest, TextEmbeddings
from cleanctl.runtime import Choice
from cleanctl.score import compute
from cleanctl.selection.select import select_split
from cleanctl.store import Store

ROOT = Path(__file__).resolve().parents[2]
ROWS, DIM, CLASSES, EACH = 900, 48, 6, 3
STRATEGIES = ["intersection", "knn.consistency & zeroshot.similarity", "joint"]
DEVICES = ["cpu:0", pytest.param("cuda", marks=pytest.mark.gpu)]
CHILD = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_on_device import kept
print(*kept(Path(sys.argv[2]), sys.argv[3], "zeroshot.loss & logistic.consistency & knn.match").nonzero()[0])
"""


def make_store(path):
    """Images about their class's prompts, a third of the labels wrong."""
    rng = np.random.default_rng(0)

    def unit(values):
        return values / np.linalg.norm(values, axis=1, keepdims=True)

    text_PD = unit(np.repeat(rng.standard_normal((CLASSES, DIM)), EACH, axis=0) + rng.standard_normal((18, DIM)))
    truth_N = rng.integers(0, CLASSES, ROWS)
    image_ND = unit(text_PD[truth_N * EACH] + 0.25 * rng.standard_normal((ROWS, DIM))).astype(np.float16)
    wrong_N = rng.random(ROWS) < 0.33
    label_N = np.where(wrong_N, rng.integers(0, CLASSES, ROWS), truth_N)
    store = Store.create(
        path, classes=[f"class {k}" for k in range(CLASSES)], encoder={"model": "synthetic", "logit_scale": 20.0}
    )
    nothing = np.zeros(ROWS, np.int64)
    fingerprints = Fingerprints(digest_N16=np.zeros((ROWS, 16), np.uint8), size_N=nothing, mtime_ns_N=nothing)
    keys = [f"{row:05d}.jpg" for row in range(ROWS)]
    manifest = SplitManifest(split="train", keys=keys, label_N=label_N, truth_N=truth_N)
    with store.write_split(manifest, dim=DIM, fingerprints=fingerprints) as writer:
        writer.put(np.arange(ROWS), image_ND)
        writer.finish()
    class_P = np.repeat(np.arange(CLASSES), EACH).astype(np.int32)
    prompts = tuple(f"p{row}" for row in range(len(class_P)))
    store.write_text(TextEmbeddings(embedding_PD=text_PD.astype(np.float32), class_P=class_P, prompts=prompts), {})
    return store


def kept(path, device, strategy):
    """(N,) bool of a selection made on the device, from a store of its own: scores that are there would be used."""
    store, chosen = make_store(path), compute.choose_device
    split, config = store.split("train"), SelectConfig(strategy=strategy)
    compute.choose_device = lambda wanted: Choice(value=device, reason="the test")
    try:
        compute.score_split(store, split, config)
    finally:
        compute.choose_device = chosen
    return split.read_result("selections", select_split(store, split, config).name).arrays["keep"]


def jaccard(one, other):
    return (one & other).sum() / (one | other).sum()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_selection_on_a_device_is_that_of_a_cpu(strategy, device, tmp_path):
    expected = kept(tmp_path / "cpu.zarr", "cpu", strategy)
    assert 0.2 < expected.mean() < 0.9
    assert jaccard(kept(tmp_path / "there.zarr", device, strategy), expected) >= 0.998


@pytest.mark.parametrize("device", [pytest.param("cpu:0", marks=pytest.mark.slow), DEVICES[1]])
def test_two_processes_on_one_device_select_what_one_does(device, tmp_path):
    command = [sys.executable, "-c", CHILD, str(Path(__file__).parent)]
    both = [
        subprocess.Popen([*command, tmp_path / f"{number}.zarr", device], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        for number in range(2)
    ]
    said = [one.communicate()[0] for one in both]
    assert [one.returncode for one in both] == [0, 0]
    expected = kept(tmp_path / "cpu.zarr", "cpu", "zeroshot.loss & logistic.consistency & knn.match")
    for words in said:
        found = np.zeros(ROWS, bool)
        found[[int(word) for word in words.split()]] = True
        assert jaccard(found, expected) >= 0.998
