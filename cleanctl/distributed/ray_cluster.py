"""A Ray cluster to work on: one that runs already, else one of this machine for the time of a run. Ray Core alone.

Ray's usage statistics are off, its dashboard and its own output too; nothing is uploaded: workers import cleanctl from
their own machine, and read images, model and store where a shared file system has them under the same paths.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from typing import Any, Literal

from cleanctl.errors import CleanctlError, MissingPackageError, UsageError, first_line
from cleanctl.progress import Progress
from cleanctl.runtime import cpu_count

ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # without it Ray warns of what a later version will do
}
LOGS = "Ray's logs (/tmp/ray/session_latest/logs)"  # of each node on itself
STARTS = 3
CORES = 4  # of an actor without a GPU
LOCAL_OBJECTS = 200 * 2**20  # bytes of shared memory: a data set's keys pass through it, and nothing larger


@contextmanager
def connected(address: str | None, progress: Progress) -> Iterator[Any]:
    """The module `ray`, connected to the cluster at `address`, or to one that ends with this context.

    Raises MissingPackageError without Ray, UsageError where no cluster answers or its versions are others. A process
    that has called `ray.init` itself keeps its cluster.
    """
    ray = _import_ray()
    if ray.is_initialized():
        if address is not None:
            raise UsageError(
                f"--ray-address is {address!r}, and this process is connected to a Ray cluster already.",
                do="Leave it out to use that cluster, or call ray.shutdown() first.",
            )
        yield ray
        return
    with redirect_stdout(sys.stderr):  # a thread of Ray's prints there what happens to nodes; stdout is for results
        try:
            _start(ray, address)
            nodes = live_nodes(ray)
            place = "a Ray cluster of this machine" if address is None else f"the Ray cluster at {address}"
            progress.note(f"Ray {ray.__version__}: {place}, {len(nodes)} node{'s' if len(nodes) > 1 else ''}.")
            yield ray
        finally:
            ray.shutdown()


def _import_ray() -> Any:
    os.environ.update(ENVIRONMENT)  # read at import
    try:
        import ray
    except ImportError as exc:
        raise MissingPackageError.of("ray", extra="ray", needed_for="--engine ray") from exc
    return ray


def _start(ray: Any, address: str | None) -> None:
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address is None:
        for left in reversed(range(STARTS)):
            try:
                ray.init(
                    address="local",
                    num_cpus=cpu_count(),
                    object_store_memory=LOCAL_OBJECTS,
                    include_dashboard=False,
                    **quiet,
                )
                return
            except (
                Exception
            ) as exc:  # Ray raises nothing narrower where a process of its own is late, on a busy machine
                ray.shutdown()
                if not left:
                    raise CleanctlError(
                        f"Ray did not start {STARTS} times: {first_line(exc)}",
                        do=f"Try again when the machine is less busy, or look at {LOGS}.",
                    ) from exc
    try:
        ray.init(address=address, **quiet)
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.AuthenticationError) as exc:
        raise UsageError(
            f"--ray-address is {address!r}, and no cluster can be used there: {first_line(exc)}",
            do="Start one with `ray start --head`, with this Python and this Ray, or leave --ray-address out. If it "
            "asks for a token, set RAY_AUTH_MODE=token here and on every node.",
        ) from exc


def live_nodes(ray: Any) -> list[dict[str, float]]:
    """The resources of each live node: CPU, GPU and others."""
    return [dict(node["Resources"]) for node in ray.nodes() if node["Alive"]]


@dataclass(frozen=True, kw_only=True)
class Seat:
    """What one actor has of a node."""

    cores: int
    gpus: int

    def count(self, nodes: Sequence[Mapping[str, float]]) -> int:
        """How many actors the nodes have room for."""
        return sum(self._on(node) for node in nodes)

    def _on(self, node: Mapping[str, float]) -> int:
        by_core = int(node.get("CPU", 0) // self.cores) if self.cores else sys.maxsize
        return min(by_core, int(node.get("GPU", 0)) // self.gpus) if self.gpus else by_core

    @property
    def device(self) -> Literal["cuda", "cpu"]:
        return "cuda" if self.gpus else "cpu"

    def __str__(self) -> str:
        cores = f"{self.cores} core{'' if self.cores == 1 else 's'}"
        return f"a GPU and {cores}" if self.gpus else cores


def choose_seat(nodes: Sequence[Mapping[str, float]], device: str, cores: int | None) -> Seat:
    """One GPU an actor where the cluster has GPUs and `device` allows it, else a set of cores.

    Raises UsageError where no node has room for one actor.
    """
    with_gpu = [node for node in nodes if node.get("GPU", 0) >= 1]
    if device == "cuda" and not with_gpu:
        raise UsageError(
            "--device cuda was asked for, and no node of the Ray cluster has a GPU.", do="Use --device cpu."
        )
    if with_gpu and device != "cpu":
        share = min(int(node.get("CPU", 0) // node["GPU"]) for node in with_gpu)
        seat = Seat(cores=share if cores is None else cores, gpus=1)
    else:
        most = int(max((node.get("CPU", 0) for node in nodes), default=0))
        seat = Seat(cores=max(1, min(CORES, most)) if cores is None else cores, gpus=0)
    if not seat.count(nodes):
        raise UsageError(
            f"An actor is to have {seat}, and no node of the Ray cluster has them.",
            do="Give fewer with --ray-cores, or start nodes that have them: ray start --address HOST:PORT",
        )
    return seat
