"""Promises about `torchrun -m cleanctl select`: the selection of one process, and one that prints."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import parts_store as parts
import pytest

from cleanctl import api
from cleanctl.config import SelectConfig
from cleanctl.errors import UsageError
from cleanctl.store import Store


def torchrun(path: Path, count: int, *options: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
    select = ["-m", "cleanctl", "select", "--store", str(path), "--name", "one", "--device", "cpu", "--json", *options]
    return subprocess.run([*command, *select], capture_output=True, text=True, env=environment)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("strategy", "options"),
    [
        ("intersection", {}),
        ("knn.match & knn.loss", {"neighbors": 20}),
        ("joint", {"temperature": 0.05}),
        (parts.ALL, {"temperature": 0.05}),
    ],
)
def test_two_processes_of_torchrun_select_what_one_process_selects(tmp_path, strategy, options):
    path = parts.make_store(tmp_path / "alone.zarr", by_label=True)
    shared = Path(shutil.copytree(path, tmp_path / "shared.zarr"))
    alone = parts.selected(path, strategy, **options)
    given = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    done = torchrun(shared, 2, "--strategy", strategy, "--out", str(tmp_path / "table.csv"), *given)
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(done.stdout.splitlines()) == 1
    assert json.loads(done.stdout)["kept"] == alone["keep"].sum()
    split = Store.open(shared).split("train")
    parts.assert_same_selection(split.read_result("selections", "one").arrays, alone, strategy)
    assert {one["parts"] for one in split.results("scores").values()} == {2}
    assert len((tmp_path / "table.csv").read_text().splitlines()) == parts.ROWS + 1
    assert done.stderr.count("2 processes share") <= 1


@pytest.mark.slow
def test_more_processes_than_blocks_leave_the_last_without_rows(tmp_path):
    path = parts.make_store(tmp_path / "s.zarr", block_rows=384)
    done = torchrun(path, 3, "--strategy", "zeroshot.loss")
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stderr.count("torchrun with 3: 2 processes share the 698 rows") == 1
    assert {one["parts"] for one in Store.open(path).split("train").results("scores").values()} == {2}


def test_processes_beside_those_of_torchrun_are_refused(tmp_path, monkeypatch):
    for name, value in {"WORLD_SIZE": "2", "RANK": "0", "TORCHELASTIC_RUN_ID": "x"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match="--processes 4 was given under torchrun, which started 2"):
        api.select(SelectConfig(processes=4, device="cpu"), store=tmp_path / "s.zarr")
