"""A scorer and an exporter of another package, each one file and one entry point, work through the command line."""

from __future__ import annotations

import json
import os
from pathlib import Path

import commands
import numpy as np
import pytest

TESTS = Path(__file__).parents[1]
ENTRY_POINTS = """[cleanctl.scorers]
centroid = toy_scorer:Centroid
[cleanctl.exporters]
jsonl = toy_exporter:JsonLines
"""


@pytest.fixture
def cleanctl(tmp_path):
    """Runs the command line where a package with both toys is installed."""
    package = tmp_path / "site" / "toy-0.dist-info"
    package.mkdir(parents=True)
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: toy\nVersion: 0\n")
    (package / "entry_points.txt").write_text(ENTRY_POINTS)
    folders = [str(package.parent), str(TESTS / "score"), str(TESTS / "export"), os.environ.get("PYTHONPATH", "")]

    def run(*words):
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(folders)}
        return commands.run("-m", "cleanctl", *words, cwd=tmp_path, env=environment)

    return run


def test_a_toy_scorer_and_a_toy_exporter_work_through_the_command_line(cleanctl, tmp_path):
    rng = np.random.default_rng(0)
    truth = np.arange(200) % 4
    image = np.eye(4, 16)[truth] + 0.15 * rng.standard_normal((200, 16))
    label = np.where(rng.random(200) < 0.2, (truth + 1) % 4, truth)
    np.save(tmp_path / "x.npy", (image / np.linalg.norm(image, axis=1, keepdims=True)).astype(np.float32))
    np.save(tmp_path / "y.npy", label)
    done = cleanctl("import", "--image-embeddings", "x.npy", "--labels", "y.npy")
    assert done.returncode == 0, done.stderr
    strategy = "centroid.loss & centroid.sure"
    done = cleanctl("select", "--strategy", strategy, "--name", "toy", "--out", "table.jsonl", "--json")
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["evidence"] == "centroid"
    assert summary["scores"][0]["score"] == "centroid-scale=20"
    rows = [json.loads(line) for line in (tmp_path / "table.jsonl").read_text().splitlines()]
    keep = np.array([row["keep"] for row in rows])
    assert keep.sum() == summary["kept"] > 100
    assert (label == truth)[keep].mean() > 0.97
    assert {"centroid.loss.score", "centroid.sure.keep"} <= rows[0].keys()
    assert [row["key"] for row in rows] == sorted(row["key"] for row in rows)


def test_a_slip_in_a_toy_name_is_answered_with_it(cleanctl):
    done = cleanctl("select", "--strategy", "centroit.loss")
    assert done.returncode == 2
    assert "did you mean 'centroid'?" in done.stderr
    done = cleanctl("select", "--strategy", "centroid.sur")
    assert "did you mean 'sure'?" in done.stderr
    done = cleanctl("select", "--out", "table.xlsx")
    assert done.returncode == 2
    assert ".parquet or .csv or .json or .jsonl" in " ".join(done.stderr.split())
