"""Promises about `select --engine ray`, on a real local cluster: the selection of one process, an error for a death."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from cleanctl import api
from cleanctl.config import SelectConfig
from cleanctl.distributed.ray_cluster import ENVIRONMENT
from cleanctl.errors import CleanctlError, StoreError, UsageError
from cleanctl.progress import SILENT
from cleanctl.store import Store

_spec = importlib.util.spec_from_file_location("parts_store", Path(__file__).with_name("parts_store.py"))
assert _spec is not None
assert _spec.loader is not None
parts = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(parts)


@pytest.fixture(scope="module")
def _ray():
    """One cluster for all, of two cores, whatever the machine has. Without Ray a skip, in CI a failure."""
    if not os.environ.get("CI"):
        pytest.importorskip("ray")
    from cleanctl.distributed.ray_cluster import connected

    with pytest.MonkeyPatch.context() as patch:
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
        patch.setattr("cleanctl.distributed.ray_cluster.cpu_count", lambda: 2)
        with connected(None, SILENT):
            yield


def on_ray(path: Path, strategy: str, progress, **options) -> dict:
    config = SelectConfig(strategy=strategy, name="one", device="cpu", engine="ray", ray_cores=1, **options)
    api.select(config, store=path, progress=progress)
    return Store.open(path).split("train").read_result("selections", "one").arrays


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("_ray")
@pytest.mark.parametrize(
    ("strategy", "options"),
    [("intersection", {}), (parts.ALL, {"temperature": 0.05}), ("joint", {"temperature": 0.05})],
)
def test_two_actors_select_what_one_process_selects(tmp_path, strategy, options, recorder):
    path = parts.make_store(tmp_path / "alone.zarr", by_label=True)
    shared = Path(shutil.copytree(path, tmp_path / "shared.zarr"))
    alone = parts.selected(path, strategy, **options)
    parts.assert_same_selection(on_ray(shared, strategy, recorder, **options), alone, strategy)
    assert "2 processes share the 698 rows in blocks of 64." in recorder.notes
    assert any(note.startswith("zeroshot") or note.startswith("joint") for note in recorder.notes)
    assert recorder.tracked
    assert {one["parts"] for one in Store.open(shared).split("train").results("scores").values()} == {2}


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("_ray")
def test_what_an_actor_finds_wrong_is_the_runs_error(tmp_path, recorder):
    path = parts.make_store(tmp_path / "s.zarr")
    damaged = path / "train" / "embedding" / "c" / "10" / "0"
    values = bytearray(damaged.read_bytes())
    values[100] ^= 0xFF
    damaged.write_bytes(values)
    with pytest.raises(StoreError, match="embedding"):
        on_ray(path, "zeroshot.loss", recorder)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("_ray")
def test_an_actor_that_is_killed_is_one_clear_error_and_the_same_command_goes_on(tmp_path, recorder):
    path = parts.make_store(tmp_path / "s.zarr")
    killed = []

    def kill_one() -> None:
        for _ in range(12_000):
            for one in psutil.Process().children(recursive=True):
                try:
                    working = "Part.run" in " ".join(one.cmdline())
                except psutil.Error:
                    continue
                if working:
                    one.kill()
                    killed.append(one.pid)
                    return
            time.sleep(0.01)

    killer = threading.Thread(target=kill_one)
    killer.start()
    with pytest.raises(CleanctlError, match="A worker of Ray died") as caught:
        on_ray(path, parts.ALL, recorder, temperature=0.05)
    killer.join()
    assert caught.value.exit_code == 1
    assert len(killed) == 1
    found = on_ray(path, "zeroshot.loss", recorder)
    assert found["keep"].any()


def test_options_of_ray_are_refused_without_it():
    with pytest.raises(UsageError, match="--ray-cores was given with --engine local"):
        SelectConfig(ray_cores=2)
