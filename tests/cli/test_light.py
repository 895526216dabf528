"""What a verb on a CPU does not load: torch costs seconds and hundreds of MiB, which selecting does not need."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest

HEAVY = ("torch", "open_clip", "pandas", "scipy", "sklearn")
VERBS = (
    "select --strategy intersection --device cpu --out a.parquet",
    "select --strategy intersection --name auto",
    "select --strategy zeroshot.similarity --name near",
    "select --strategy knn.match|logistic.match --crossfit 2 --name voted",
    "diff intersection auto --out diff.parquet",
    "export kept.parquet",
    "status",
    "eval",
    "report --out page.html",
)
JOINT = "select --strategy joint --temperature 0.01 --name joint --out b.csv"  # its sums are products of scipy.sparse
CHILD = f"""
import json, sys
from cleanctl.cli import app
for line in sys.stdin:
    app(line.split(), standalone_mode=False)
    print("loaded", json.dumps([name for name in {HEAVY} if name in sys.modules]))
"""


@pytest.fixture
def folder(tmp_path, tiny):
    rng = np.random.default_rng(0)
    text = rng.standard_normal((6, 16))
    label = rng.integers(0, 3, 400)
    image = text[2 * label] + 0.3 * rng.standard_normal((400, 16))
    given = np.where(rng.random(400) < 0.2, rng.integers(0, 3, 400), label)
    tiny.import_store(
        tmp_path, ("cat", "dog", "owl"), image=image, label=given, text=text, text_class=np.repeat(np.arange(3), 2),
        truth=label,
    )  # fmt: skip
    return tmp_path


def test_verbs_that_read_embeddings_load_neither_torch_nor_pandas(folder):
    lines = "\n".join((*VERBS, JOINT))
    done = subprocess.run(
        [sys.executable, "-c", CHILD], input=lines, cwd=folder, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr[-2000:]
    loaded = [json.loads(line.split(" ", 1)[1]) for line in done.stdout.splitlines() if line.startswith("loaded")]
    assert dict(zip((*VERBS, JOINT), loaded, strict=True)) == {**{verb: [] for verb in VERBS}, JOINT: ["scipy"]}


def test_missing_weights_are_told_before_open_clip_and_torch_are_loaded(tmp_path):
    (tmp_path / "src" / "cat").mkdir(parents=True)
    (tmp_path / "src" / "cat" / "a.png").write_bytes(b"x")
    environment = {**os.environ, "HOME": str(tmp_path), "HF_HUB_CACHE": str(tmp_path / "hub")}
    done = subprocess.run(
        [sys.executable, "-c", CHILD],
        input="embed src --model ViT-B-32 --pretrained laion2b_s34b_b79k --json",
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert "are not on this disk" in done.stdout
    assert "loaded []" in done.stdout
