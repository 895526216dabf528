"""Promises about `select --engine ray`, on a real local cluster: the selection of one process, whoever dies."""

from __future__ import annotations

import shutil
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import parts_store as parts
import psutil
import pytest

from cleanctl import api
from cleanctl.config import SelectConfig
from cleanctl.distributed import ray_select
from cleanctl.errors import CleanctlError, StoreError, UsageError
from cleanctl.progress import SILENT
from cleanctl.store import Store


@pytest.fixture(scope="module")
def _ray(ray_processes):
    """One cluster for all, of two cores, whatever the machine has."""
    from cleanctl.distributed.ray_cluster import connected

    with pytest.MonkeyPatch.context() as patch:
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
    parts.damage(path)
    with pytest.raises(StoreError, match="embedding"):
        on_ray(path, "zeroshot.loss", recorder)


class Killer:
    """Kills actors, one each time that two compute, in a thread."""

    def __init__(self, victims: int = 1) -> None:
        self.killed: list[int] = []
        self._left, self._ended = victims, threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Killer:
        self._thread.start()
        return self

    def __exit__(self, *exc: Any) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while self._left and not self._ended.wait(0.02):
            working = [one for one in actors_at_work() if one.pid not in self.killed]
            if len(working) == 2:
                time.sleep(0.2)  # anywhere in the work
                with suppress(psutil.Error):
                    working[self._left % 2].kill()
                    self.killed.append(working[self._left % 2].pid)
                    self._left -= 1


def actors_at_work() -> list[psutil.Process]:
    found = []
    for one in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if "Part.run" in " ".join(one.cmdline()):
                found.append(one)
    return sorted(found, key=lambda one: one.pid)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("_ray")
def test_actors_that_are_killed_change_nothing_in_the_selection(tmp_path, recorder):
    """To the last bit: as many actors add up in the same order."""
    path = parts.make_store(tmp_path / "s.zarr", by_label=True)
    disturbed = Path(shutil.copytree(path, tmp_path / "disturbed.zarr"))
    calm = on_ray(path, parts.ALL, SILENT, temperature=0.05)
    with Killer(victims=3) as killer:
        found = on_ray(disturbed, parts.ALL, recorder, temperature=0.05)
    assert len(killer.killed) == 3
    assert sum(note.startswith("A worker died; the score in hand") for note in recorder.notes) == 3
    assert list(found) == list(calm)
    for name, values in calm.items():
        np.testing.assert_array_equal(found[name], values, err_msg=name)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("_ray")
def test_actors_that_die_again_and_again_are_one_clear_error_and_the_same_command_goes_on(
    tmp_path, recorder, monkeypatch
):
    monkeypatch.setattr(ray_select, "DEATHS", 2)
    path = parts.make_store(tmp_path / "s.zarr")
    with (
        Killer(victims=100),
        pytest.raises(CleanctlError, match="Workers of Ray died 2 times at the same score") as why,
    ):
        on_ray(path, parts.ALL, recorder, temperature=0.05)
    assert why.value.exit_code == 1
    assert not Store.open(path).split("train").results("selections")
    assert not actors_at_work()
    found = on_ray(path, "zeroshot.loss", recorder)
    assert found["keep"].any()


def test_options_of_ray_are_refused_without_it():
    with pytest.raises(UsageError, match="--ray-cores was given with --engine local"):
        SelectConfig(ray_cores=2)
