"""The scripts of docs/slurm on SLURM itself: its daemons run here for the time of these tests, as two nodes."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import slurm_cluster

from cleanctl.api import embed

ROOT = Path(__file__).resolve().parents[2]
ARRAY, RAY = (ROOT / "docs" / "slurm" / name for name in ("embed_array.sh", "ray.sh"))
SMALL = ("--cpus-per-task=1", "--gpus-per-node=1")  # in place of the scripts' large nodes

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800), pytest.mark.usefixtures("ray_processes")]


@pytest.fixture(scope="module")
def cluster(ray_processes):
    if lacking := slurm_cluster.missing():
        pytest.skip(f"SLURM is not installed: no {', '.join(lacking)} (Debian: slurm-wlm and munge)")
    with slurm_cluster.slurm() as environment:
        yield environment


@pytest.fixture
def sbatch(cluster, tmp_path):
    """Submits a script and says its job's number; `.env` is its environment, `.log` what the job printed."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, module in (("cleanctl", "cleanctl"), ("ray", "ray.scripts.scripts")):
        (folder / name).write_text(f'#!/bin/bash\nexec {sys.executable} -m {module} "$@"\n')
        (folder / name).chmod(0o755)
    own = {"PATH": f"{folder}{os.pathsep}{cluster['PATH']}", "RAY_PORT": str(slurm_cluster.free_port())}

    def submit(*command) -> str:
        options = ["sbatch", "--parsable", "--export=ALL", f"--output={tmp_path}/job-%j.log", *map(str, command)]
        done = subprocess.run(options, env={**os.environ, **submit.env}, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    submit.env = {**cluster, **own}
    submit.log = lambda job: "".join(file.read_text() for file in tmp_path.glob(f"job-{job}.log"))
    return submit


def ended(sbatch, job: str) -> str:
    """How, once it has: state and exit code."""
    told = {}

    def over() -> bool:
        shown = slurm_cluster.said("scontrol", "--oneliner", "show", "job", job, env=sbatch.env).split()
        told.update(word.split("=", 1) for word in shown if "=" in word)
        return told["JobState"] not in ("PENDING", "RUNNING", "COMPLETING", "CONFIGURING")

    slurm_cluster.until(over, 900)
    return f"{told['JobState']} {told['ExitCode']}"


def arguments(config) -> list[str]:
    options = ["--loader", "torch", "--device", "cpu", "--batch-size", "4", "--workers", "0"]
    return [str(config.source), "--model", config.model, *options]


def test_an_array_and_the_job_after_it_fill_the_store_of_one_process(sbatch, config, tmp_path, arrays):
    embed(config, store=tmp_path / "whole.zarr")
    sbatch.env["CLEANCTL_STORE"] = str(tmp_path / "array.zarr")
    job = sbatch("--array=1-3", "--cpus-per-task=1", ARRAY, *arguments(config))
    last = sbatch(f"--dependency=afterok:{job}", "--cpus-per-task=1", ARRAY, *arguments(config))
    assert ended(sbatch, last) == "COMPLETED 0:0", sbatch.log("*")
    assert arrays(tmp_path / "array.zarr") == arrays(tmp_path / "whole.zarr")


def test_a_job_of_ray_that_is_told_to_end_says_what_remains_and_the_next_one_goes_on(sbatch, config, tmp_path, arrays):
    embed(config, store=tmp_path / "whole.zarr")
    sbatch.env["CLEANCTL_STORE"] = str(tmp_path / "ray.zarr")
    command = [*SMALL, RAY, "cleanctl", "embed", *arguments(config), "--ray-cores", "1"]
    job = sbatch(*command)
    slurm_cluster.until(lambda: "Room for 2 workers" in sbatch.log(job), 600)
    slurm_cluster.said("scancel", "--batch", "--signal=TERM", job, env=sbatch.env)
    assert ended(sbatch, job) == "FAILED 130:0", sbatch.log(job)
    assert "Stopped on request: " in sbatch.log(job)
    job = sbatch(*command)
    assert ended(sbatch, job) == "COMPLETED 0:0", sbatch.log(job)
    assert arrays(tmp_path / "ray.zarr") == arrays(tmp_path / "whole.zarr")
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", int(sbatch.env["RAY_PORT"])))  # the cluster ended with the job
