"""Several processes that tune one image tower: what they learn is what one process learns."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

from cleanctl import api
from cleanctl.adapt import run
from cleanctl.config import AdaptConfig, EmbedConfig
from cleanctl.errors import UsageError
from cleanctl.store import Store
from cleanctl.train.ranks import Ranks

CHILD = Path(__file__).with_name("rank_child.py")


@pytest.fixture(scope="module")
def made(tmp_path_factory, model_dir, web_folder) -> Path:
    path = tmp_path_factory.mktemp("ranks") / "cleanctl.zarr"
    machine = {"loader": "torch", "workers": 0, "device": "cpu"}
    api.embed(EmbedConfig(source=web_folder, model=f"local-dir:{model_dir}", prompts="photo", **machine), store=path)
    return path


def start(folder: Path, made: Path, *arguments: str, ranks: int) -> subprocess.CompletedProcess[str]:
    store = folder / f"of-{ranks}" / "cleanctl.zarr"
    if not store.exists():
        shutil.copytree(made, store)
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
    command = [sys.executable, *(torchrun if ranks > 1 else []), str(CHILD), str(store), *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run(command, capture_output=True, text=True, env=environment)


@pytest.mark.slow
@pytest.mark.parametrize("tune", ["lora", "partial:1"])
def test_two_processes_learn_what_one_does(tmp_path: Path, made: Path, tune: str) -> None:
    found = []
    for ranks in (1, 2):
        done = start(tmp_path, made, "d", tune, ranks=ranks)
        assert done.returncode == 0, done.stderr[-3000:]
        folder = tmp_path / f"of-{ranks}"
        score = Store.open(folder / "cleanctl.zarr").split("train").read_result("scores", "detector")
        found.append((load_file(folder / "cleanctl.detectors/d/detector.safetensors"), score.arrays["p_clean"]))
    (alone, alone_N), (shared, shared_N) = found
    assert alone.keys() == shared.keys()
    for name in alone:
        np.testing.assert_allclose(shared[name].float(), alone[name].float(), rtol=1e-3, atol=1e-4, err_msg=name)
    np.testing.assert_allclose(np.asarray(shared_N), np.asarray(alone_N), atol=2e-3)
    told = [json.loads((tmp_path / f"of-2/d-{rank}.json").read_text()) for rank in (0, 1)]
    assert told[0]["kept"] == told[1]["kept"] == json.loads((tmp_path / "of-1/d-0.json").read_text())["kept"]


@pytest.mark.slow
def test_a_process_that_dies_is_told_of_and_the_same_command_goes_on(tmp_path: Path, made: Path) -> None:
    done = start(tmp_path, made, "d", "lora", "die", ranks=2)
    assert done.returncode != 0
    assert not (tmp_path / "of-2/cleanctl.detectors/d/result.json").exists()
    done = start(tmp_path, made, "d", "lora", ranks=2)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "of-2/cleanctl.detectors/d/result.json").exists()


@pytest.mark.parametrize("asked", [{"tune": "prompts"}, {"apply": "d"}])
def test_torchrun_is_refused_where_there_is_no_work_to_share(asked: dict[str, str]) -> None:
    with pytest.raises(UsageError, match="started by torchrun, in 2 processes"):
        run._require_alone(Ranks(1, 2), AdaptConfig(**asked))
