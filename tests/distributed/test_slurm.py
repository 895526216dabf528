"""The scripts of docs/slurm as plain processes: SLURM is environment variables and two commands on the path."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from cleanctl.api import embed

ROOT = Path(__file__).resolve().parents[2]
ARRAY, RAY = (ROOT / "docs" / "slurm" / name for name in ("embed_array.sh", "ray.sh"))
LISTEN = (
    "import os, socket, time; s = socket.create_server(('127.0.0.1', int(os.environ['RAY_PORT']))); time.sleep(100)"
)
SAY = 'echo "$(basename "$0")" "$@" >> "$TOLD"\n'


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """Makes a command on the path; gives what was said to those that tell."""
    folder, told = tmp_path / "bin", tmp_path / "told"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("TOLD", str(told))

    def command(name: str, body: str) -> None:
        (folder / name).write_text("#!/bin/bash\n" + body)
        (folder / name).chmod(0o755)

    # srun runs what follows its options; a job has two nodes, both of them this machine.
    command("srun", 'while [[ $1 == --* ]]; do shift; done\nexec "$@"\n')
    command("scontrol", "echo node-a; echo node-b\n")
    command("hostname", "echo 127.0.0.1\n")
    command("cleanctl", f'exec {sys.executable} -m cleanctl "$@"\n')
    monkeypatch.setenv("SLURM_JOB_NODELIST", "node-[a-b]")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
    command.told = lambda: told.read_text().splitlines()
    return command


def run(script: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **more}
    return subprocess.run(["bash", str(script), *arguments], capture_output=True, text=True, env=environment)


def test_a_job_of_the_array_takes_its_shard_and_the_job_after_it_joins_them(slurm):
    slurm("cleanctl", SAY)
    task = {"SLURM_ARRAY_TASK_MIN": "1", "SLURM_ARRAY_TASK_COUNT": "8"}
    for number in ("1", "8"):
        assert run(ARRAY, "a b/", "--loader", "torch", SLURM_ARRAY_TASK_ID=number, **task).returncode == 0
    assert run(ARRAY, "a b/", "--loader", "torch").returncode == 0
    assert slurm.told() == [
        "cleanctl embed a b/ --loader torch --shard 0/8",
        "cleanctl embed a b/ --loader torch --shard 7/8",
        "cleanctl embed a b/ --loader torch --finish",
    ]
    assert run(ARRAY).returncode == run(RAY).returncode == 2


def test_the_job_of_ray_starts_a_head_and_workers_and_ends_with_the_commands_code(slurm):
    slurm("cleanctl", SAY + "until [ $(grep -c ^ray $TOLD) = 2 ]; do sleep 0.05; done; exit 4\n")
    slurm(
        "ray", SAY + f"case $* in *--head*) exec {sys.executable} -c {shlex.quote(LISTEN)};; *) exec sleep 100;; esac\n"
    )
    port = free_port()
    done = run(RAY, "cleanctl", "embed", "photos/", SLURM_CPUS_PER_TASK="3", SLURM_GPUS_ON_NODE="2", RAY_PORT=port)
    assert done.returncode == 4, done.stderr
    size = "--num-cpus=3 --num-gpus=2"
    assert sorted(slurm.told()) == [
        f"cleanctl embed photos/ --engine ray --ray-address 127.0.0.1:{port}",
        f"ray start --block --address=127.0.0.1:{port} {size}",
        f"ray start --head --block --include-dashboard=false --node-ip-address=127.0.0.1 --port={port} {size}",
    ]


def test_a_signal_before_the_time_limit_reaches_the_command_which_ends_by_itself(slurm):
    slurm(
        "cleanctl",
        "trap 'sleep 0.3; echo finished its batch; exit 130' TERM\necho at work\nwhile true; do sleep 0.05; done\n",
    )
    slurm("ray", "exec sleep 100\n")
    with socket.create_server(("127.0.0.1", 0)) as server:
        environment = {**os.environ, "RAY_PORT": str(server.getsockname()[1])}
        command = ["bash", str(RAY), "cleanctl", "embed", "photos/"]
        with started(command, environment) as process:
            assert process.stdout.readline() == "at work\n"
            process.send_signal(signal.SIGTERM)
            assert process.stdout.read() == "finished its batch\n"
            assert process.wait() == 130


@contextmanager
def started(command: list[str], environment: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    """In a session of its own, none of which outlives a test that failed."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, start_new_session=True)
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()


def test_a_signal_that_comes_before_the_command_starts_ends_the_job(slurm):
    slurm("cleanctl", SAY)
    slurm("ray", "echo starting; exec sleep 100\n")
    with started(
        ["bash", str(RAY), "cleanctl", "embed", "photos/"], {**os.environ, "RAY_PORT": free_port()}
    ) as process:
        assert process.stdout.readline() == "starting\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait() == 143


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_both_scripts_fill_the_store_of_one_process(slurm, config, tmp_path, arrays):
    if shutil.which("ray") is None and not os.environ.get("CI"):
        pytest.skip("Ray is not installed")
    embed(config, store=tmp_path / "whole.zarr")
    arguments = [str(config.source), "--model", config.model, "--loader", "torch", "--device", "cpu"]
    arguments += ["--batch-size", "4", "--workers", "0"]
    for task in ("0", "1", None):
        more = {} if task is None else {"SLURM_ARRAY_TASK_ID": task, "SLURM_ARRAY_TASK_COUNT": "2"}
        done = run(ARRAY, *arguments, CLEANCTL_STORE=str(tmp_path / "array.zarr"), **more)
        assert done.returncode == 0, done.stderr
    assert arrays(tmp_path / "array.zarr") == arrays(tmp_path / "whole.zarr")
    more = {"CLEANCTL_STORE": str(tmp_path / "ray.zarr"), "SLURM_CPUS_PER_TASK": "1", "RAY_PORT": free_port()}
    done = run(RAY, "cleanctl", "embed", *arguments, "--ray-cores", "1", **more)
    assert done.returncode == 0, done.stderr
    assert arrays(tmp_path / "ray.zarr") == arrays(tmp_path / "whole.zarr")
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", int(more["RAY_PORT"])))  # the cluster ended with the job


def free_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return str(server.getsockname()[1])
