"""Actors of a real Ray cluster of several processes fill one store, whoever dies: the store of one process."""

from __future__ import annotations

import os
import random
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest

from cleanctl.api import adapt, embed
from cleanctl.config import AdaptConfig
from cleanctl.distributed import ray_embed
from cleanctl.store import Store, schema, writer

HERE = Path(__file__).parent
CHILD = HERE / "ray_child.py"
AT_WORK = 400  # seconds that a busy machine may take to start a cluster and its actors
OBJECTS = 100 * 2**20  # bytes
STARTS = 6  # tries of a node


pytestmark = pytest.mark.usefixtures("ray_processes")


@pytest.fixture
def small(monkeypatch):
    """Parts of 16 rows, a pause in each batch, so that there is time to kill."""
    monkeypatch.syspath_prepend(HERE)
    import ray_small

    for module, name in ((schema, "BLOCK_ROWS"), (schema, "CHUNK_ROWS"), (writer, "SEGMENT_ROWS")):
        monkeypatch.setattr(module, name, getattr(module, name))  # to be put back
    monkeypatch.setattr(writer.SplitWriter, "put", writer.SplitWriter.put)
    monkeypatch.setattr(ray_embed, "EmbedJob", ray_small.SmallParts)
    monkeypatch.setenv("BATCH_SECONDS", "0.3")


@pytest.fixture
def many(config, tiny, tmp_path):
    """A config of 121 images, one of them unreadable, in two splits."""
    images = tiny.write_images(tmp_path / "many", 30)
    tiny.write_images(images, 10, split="test")
    (images / "train" / "cat" / "empty.jpg").write_bytes(b"")
    return replace(config, source=images)


class Cluster:
    """A head without cores and a node for each number of cores, by `ray start`; again where Ray gives up on a start,
    which it does after 30 s on a busy machine."""

    def __init__(self, folder: Path, *cores: int) -> None:
        self._folder, self._nodes = folder, []
        with socket.create_server(("127.0.0.1", 0)) as server:
            self.address = f"127.0.0.1:{server.getsockname()[1]}"
        self._cores = cores

    def __enter__(self) -> Cluster:
        self._start("--head", "--include-dashboard=false", f"--port={self.address.rpartition(':')[2]}", "--num-cpus=0")
        wait_until(lambda: self._started() == 1)
        for cores in self._cores:
            self.add(cores)
        wait_until(lambda: self._started() == 1 + len(self._cores))
        return self

    def __exit__(self, *exc) -> None:
        for number in reversed(range(len(self._nodes))):
            self.kill(number)

    def add(self, cores: int) -> None:
        """From any thread; it may take a minute until the node is there."""
        self._start(f"--address={self.address}", f"--num-cpus={cores}")

    def kill(self, number: int) -> None:
        """All processes of a node at once, the shell that would start it again first."""
        with suppress(psutil.NoSuchProcess):
            shell = psutil.Process(self._nodes[number].pid)
            for process in (shell, *shell.children(recursive=True)):
                with suppress(psutil.NoSuchProcess):
                    process.kill()
        self._nodes[number].wait()

    def _start(self, *options: str) -> None:
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", f"--object-store-memory={OBJECTS}"]
        once = shlex.join([*command, "--node-ip-address=127.0.0.1", *options])
        with self._log(len(self._nodes)).open("w") as log:
            tried = " || ".join([once] * STARTS)
            # A session of its own has its own share of a busy machine.
            process = subprocess.Popen(["bash", "-c", tried], stdout=log, stderr=log, start_new_session=True)
            self._nodes.append(process)

    def _log(self, number: int) -> Path:
        return self._folder / f"node-{number}.log"

    def _started(self) -> int:
        return sum("Ray runtime started" in self._log(number).read_text() for number in range(len(self._nodes)))


def worker_pids() -> list[int]:
    """Processes of actors that are at a task, below this one."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if "ray::Worker.do" in " ".join(process.cmdline()):
                found.append(process.pid)
    return found


def files_written(store: Path) -> int:
    """Of the journal, and of whole blocks."""
    return len(list(store.glob(".staging/*/*.npz"))) + len(list(store.glob("*/status/c/*")))


def wait_until(reached) -> None:
    end = time.monotonic() + AT_WORK
    while not reached():
        assert time.monotonic() < end, "not reached in time"
        time.sleep(0.05)


def wait_for_files(store: Path, count: int) -> None:
    wait_until(lambda: files_written(store) >= count)


def in_background(function, *arguments) -> threading.Thread:
    thread = threading.Thread(target=function, args=arguments, daemon=True)
    thread.start()
    return thread


def test_actors_of_ray_fill_the_store_of_one_process(config, tmp_path, recorder, arrays, capsys):
    (config.source / "train" / "cat" / "empty.jpg").write_bytes(b"")
    whole, shared = tmp_path / "whole.zarr", tmp_path / "shared.zarr"
    one = embed(config, store=whole)
    many = embed(replace(config, engine="ray", ray_cores=1), store=shared, progress=recorder)
    assert arrays(shared) == arrays(whole)
    assert [replace(split, seconds=0) for split in many.splits] == [replace(split, seconds=0) for split in one.splits]
    assert (many.complete, many.prompts_embedded, many.shard) == (True, True, None)
    assert ("embedding train", 22, 0) in recorder.tracked
    assert any("22 images" in text or "1 of 22" in text for text in recorder.warnings)
    assert (tmp_path / "shared.train.failures.parquet").exists()
    assert capsys.readouterr().out == "", "stdout belongs to results"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_actors_that_are_killed_at_random_change_nothing_in_the_store(many, small, tmp_path, recorder, arrays):
    chance, store = random.Random(), tmp_path / "s.zarr"
    killed = []

    def kill_some() -> None:
        for signals in (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM):
            wait_until(lambda: worker_pids() and files_written(store))
            time.sleep(chance.random())
            with suppress(ProcessLookupError, IndexError):
                victim = chance.choice(worker_pids())
                os.kill(victim, signals)
                killed.append(signals)

    with Cluster(tmp_path, 2) as made:
        killer = in_background(kill_some)
        embed(replace(many, engine="ray", ray_address=made.address, ray_cores=1), store=store, progress=recorder)
        killer.join()
    assert signal.SIGKILL in killed
    assert any(text.startswith("A worker died") for text in recorder.notes)
    embed(many, store=tmp_path / "whole.zarr")
    assert arrays(store) == arrays(tmp_path / "whole.zarr")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_node_that_dies_and_one_that_comes_change_nothing_in_the_store(many, small, tmp_path, recorder, arrays):
    """Of two nodes one dies, the other goes on alone; then it dies as well, and the one that came does the rest."""
    store, worked = tmp_path / "s.zarr", []
    with Cluster(tmp_path, 1, 1) as made:

        def replace_nodes() -> None:
            wait_until(lambda: len(worker_pids()) == 2 and files_written(store))
            made.kill(1)
            wait_for_files(store, files_written(store) + 1)
            made.kill(2)
            made.add(1)
            wait_until(worker_pids)
            worked.append("the node that came")

        replacer = in_background(replace_nodes)
        embed(replace(many, engine="ray", ray_address=made.address, ray_cores=1), store=store, progress=recorder)
        replacer.join()
    assert worked
    assert any(text.startswith("A worker died") for text in recorder.notes)
    embed(many, store=tmp_path / "whole.zarr")
    assert arrays(store) == arrays(tmp_path / "whole.zarr")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_driver_that_is_killed_or_interrupted_goes_on_when_it_runs_again(many, small, tmp_path, arrays):
    store = tmp_path / "s.zarr"
    command = [sys.executable, str(CHILD), str(many.source), many.model.removeprefix("local-dir:"), str(store)]
    told = []
    for number, sent in ((2, signal.SIGKILL), (6, signal.SIGINT), (None, None)):
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            if number is not None and sent is not None:
                wait_for_files(store, number)
                process.send_signal(sent)
            told.append(process.stdout.read())
        assert process.returncode == (-signal.SIGKILL if sent == signal.SIGKILL else 0)
    last = told[1].splitlines()[-1]
    assert last.startswith("interrupted 130: Stopped on request: ")
    left, total = (int(word) for word in last.split() if word.isdecimal())
    assert (0 < left < total, total) == (True, 121)
    embed(many, store=tmp_path / "whole.zarr")
    assert arrays(store) == arrays(tmp_path / "whole.zarr")


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("tune", ["class-vectors", "ssf"])
def test_a_detector_applied_by_actors_says_what_one_process_says(many, tmp_path, monkeypatch, recorder, tune):
    """On embeddings, and on images through a tower of its own; some parts were judged by a driver that died."""
    monkeypatch.setattr(ray_embed, "MIN_LENGTH", 16)
    store, own = tmp_path / "s.zarr", {} if tune == "class-vectors" else {"loader": "torch", "workers": 0}
    embed(many, store=store)
    adapt(AdaptConfig(tune=tune, name="mine", epochs=1, device="cpu", batch_size=16, **own), store=store)

    def applied(**more):
        result = adapt(AdaptConfig(apply="mine", device="cpu", **own, **more), store=store, progress=recorder)
        return result, Store.open(store).split("train").read_result("scores", "detector").arrays

    alone, judged_alone = applied()
    with monkeypatch.context() as patch:
        patch.setattr("cleanctl.adapt.applying.record_applied", die)
        with pytest.raises(OSError, match="died"):
            applied(engine="ray", ray_cores=1)
    parts = sorted((tmp_path / ".s.zarr.applied").glob("*/*.npz"))
    assert len(parts) == 6
    parts[2].unlink()
    together, judged_together = applied(engine="ray", ray_cores=1)
    there = [done for title, _, done in recorder.tracked if title == "judging train"]
    assert there[0] == 0
    assert there[1] in (74, 75)  # a part of 16 rows, one of which may be the unreadable image's
    assert together == alone
    assert judged_together.keys() == judged_alone.keys()
    for name, values in judged_together.items():
        np.testing.assert_allclose(values, judged_alone[name], rtol=1e-3, atol=1e-4, err_msg=name)
    assert not (tmp_path / ".s.zarr.applied").exists()


def die(*arguments, **named):
    raise OSError("died")
