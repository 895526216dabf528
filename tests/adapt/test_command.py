"""The command line: learn, select, apply; exit codes and what is printed."""

from __future__ import annotations

import json

import pytest
from blobs import write_model, write_store
from typer.testing import CliRunner

from cleanctl.cli import app


@pytest.fixture
def cleanctl(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return lambda *words: CliRunner().invoke(app, [str(word) for word in words])


def test_learn_select_and_apply_by_the_commands_of_the_help(tmp_path, cleanctl):
    model = write_model(tmp_path / "m")
    store = write_store(tmp_path / "cleanctl.zarr", model=model)
    write_store(tmp_path / "cleanctl.zarr", model=model, split="test", rows=80, seed=2)
    missing = cleanctl("select", "--strategy", "detector.dual")
    assert missing.exit_code == 4
    assert "Write it with: cleanctl adapt" in " ".join(missing.stderr.split())
    learnt = cleanctl("adapt", "--tune", "class-vectors", "--epochs", 3, "--json")
    assert learnt.exit_code == 0, learnt.stderr
    told = json.loads(learnt.stdout)
    assert told["count"] == 599
    assert told["found"]["f1"] > 0.8
    chosen = cleanctl("select", "--strategy", "detector.dual & zeroshot.consistency", "--json")
    assert chosen.exit_code == 0, chosen.stderr
    summary = json.loads(chosen.stdout)
    assert 0 < summary["kept"] <= told["kept"]
    assert {one["scorer"] for one in summary["scores"]} == {"detector", "zeroshot"}
    applied = cleanctl("adapt", "--apply", "class-vectors", "--split", "test")
    assert applied.exit_code == 0, applied.stderr
    assert "--split test" in applied.stdout
    arrays = store.split("test").read_result("scores", "detector").arrays
    assert len(arrays["p_clean"]) == 80
    wrong = cleanctl("adapt", "--apply", "class-vectors", "--epochs", 3)
    assert wrong.exit_code == 2
