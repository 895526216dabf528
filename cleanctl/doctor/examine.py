"""What this machine can run, and what to type where it cannot.

`examine` tries every library in child processes (`cleanctl.doctor.probes`), so that one that crashes or hangs is a line
of the report. In: the store's path, whose disk is looked at. Out: `Finding`s in the order in which to show them.
Leaves nothing on disk and asks nothing of the network.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cleanctl import __version__
from cleanctl.errors import install_command
from cleanctl.runtime import cpu_count

OK, ABSENT, BROKEN, ODD = "ok", "absent", "broken", "odd"
TIMEOUT = 120.0  # seconds; imports on a cold network disk take most of a minute
_FFCV_LIBRARIES = "apt-get install -y pkg-config libturbojpeg0-dev libopencv-dev"
_GIB = 2**30
_ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing. `state` is OK, ABSENT, BROKEN or ODD; `says` what was found; `why` what it is for; `type` the remedy,
    empty where nothing is to be done. A required thing that is absent or broken stops the work.
    """

    name: str
    state: str
    says: str
    required: bool = False
    why: str = ""
    type: str = ""


@dataclass(frozen=True, kw_only=True)
class Report:
    findings: tuple[Finding, ...]
    models: tuple[dict[str, Any], ...]

    @property
    def usable(self) -> bool:
        return not any(f.required and f.state in (ABSENT, BROKEN) for f in self.findings)

    def to_json(self) -> dict[str, Any]:
        return {"usable": self.usable, "findings": [asdict(f) for f in self.findings], "models": list(self.models)}


@dataclass(frozen=True, kw_only=True)
class _Thing:
    """`package` is what pip installs, by the requirement of pyproject.toml; `extra` the one that brings it, if any."""

    name: str
    why: str
    package: str = ""
    extra: str = ""
    required: bool = False


# In the order of the report.
_THINGS = (
    _Thing(name="torch", why="everything that computes", package="torch>=2.6", required=True),
    _Thing(name="torchvision", why="open_clip", package="torchvision>=0.21", required=True),
    _Thing(name="open_clip", why="embeddings", package="open_clip_torch>=3.0", required=True),
    _Thing(name="zarr", why="the store", package="zarr>=3.1", required=True),
    _Thing(name="scikit-learn", why="select", package="scikit-learn>=1.5", required=True),
    _Thing(name="pyarrow", why="label tables, --out", package="pyarrow>=18", required=True),
    _Thing(name="weights", why="embed, without --model local-dir:DIR"),
    _Thing(name="cuda", why="speed: everything runs on a processor too"),
    _Thing(name="bf16", why="embedding on a processor, 3 times faster"),
    _Thing(name="triton", why="the kernels on a GPU", package="triton"),
    _Thing(name="ffcv", why="reading images several times faster", package="ffcv>=1.0.2", extra="ffcv"),
    _Thing(name="nvjpeg", why="decoding JPEGs on a GPU (--loader nvjpeg)", package="torchcodec>=0.17", extra="gpu"),
    _Thing(name="faiss", why="fast exact neighbours (the knn scorer)", package="faiss-cpu>=1.11", extra="cpu"),
    _Thing(name="cuml", why="--logistic-solver cuml on a GPU", package="cuml-cu13>=26.10", extra="gpu"),
    _Thing(name="remote", why="images behind URLs (s3://, gs://, …)", package="fsspec>=2024.6", extra="remote"),
)
# Two children, about equally slow, as most machines have two cores or more. What needs torch is in one of them, and
# cuda before what is of use with a GPU only; FFCV imports torch once more.
_CHILDREN = (
    ("torch", "cuda", "bf16", "torchvision", "open_clip", "weights", "triton", "nvjpeg", "cuml"),
    ("pyarrow", "zarr", "scikit-learn", "faiss", "remote", "ffcv"),
)

Tell = Callable[[dict[str, Any]], None]


def examine(store: Path, *, told: Callable[[Finding], None] = lambda finding: None, timeout: float = TIMEOUT) -> Report:
    """`told` hears of each finding as soon as it is made, so in no fixed order."""
    found: dict[str, dict[str, Any]] = {}
    findings = {}
    lock = threading.Lock()

    def tell(finding: Finding) -> None:
        with lock:
            findings[finding.name] = finding
            told(finding)

    def judge(line: dict[str, Any]) -> None:
        found[line["name"]] = line
        thing = next(thing for thing in _THINGS if thing.name == line["name"])
        tell(_judge(thing, line, has_gpu="cuda" in found and found["cuda"]["state"] == OK))

    for finding in (_machine(), _disk(store)):
        tell(finding)
    with ThreadPoolExecutor(len(_CHILDREN)) as pool:
        for _ in pool.map(lambda names: run_children(names, timeout=timeout, tell=judge), _CHILDREN):
            pass
    order = ("python", *(thing.name for thing in _THINGS), "disk")
    return Report(findings=tuple(findings[name] for name in order), models=tuple(found["weights"].get("models", ())))


def run_children(
    names: tuple[str, ...], *, timeout: float, tell: Tell = lambda line: None
) -> dict[str, dict[str, Any]]:
    """Probes by name; after a crash or a hang a new child goes on with those that are left."""
    found: dict[str, dict[str, Any]] = {}

    def keep(line: dict[str, Any]) -> None:
        found[line["name"]] = line
        tell(line)

    while left := [name for name in names if name not in found]:
        begun, end = _run_child(left, timeout, keep)
        blame = next((name for name in (*begun, *left) if name not in found), None)
        if blame:
            keep({"name": blame, "state": BROKEN, "says": end})
    return found


def _run_child(names: list[str], timeout: float, tell: Tell) -> tuple[list[str], str]:
    """Which probes a child began, and how it ended."""
    command = [sys.executable, "-P", "-m", "cleanctl.doctor.probes", *names]  # -P: what lies here hides no library
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONFAULTHANDLER": "0"}
    if (_ROOT / "pyproject.toml").is_file():  # a checkout, which need not be installed
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, (os.environ.get("PYTHONPATH"), str(_ROOT))))
    begun, late = [], threading.Event()
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True) as child,
    ):

        def give_up() -> None:
            late.set()
            child.kill()

        timer = threading.Timer(timeout, give_up)
        timer.start()
        assert child.stdout is not None
        for line in map(json.loads, child.stdout):
            if "begin" in line:
                begun.append(line["begin"])
            else:
                tell(line)
        code = child.wait()
        timer.cancel()
        errors.seek(0)
        last = (errors.read().strip().splitlines() or ["no message"])[-1]
    if late.is_set():
        return begun, f"no answer within {timeout:.0f} s"
    return begun, f"its process died: {_signal_name(-code)}" if code < 0 else f"its process ended with {code}: {last}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _judge(thing: _Thing, found: dict[str, Any], *, has_gpu: bool) -> Finding:
    state, says, remedy = found["state"], found["says"], ""
    if state == ABSENT and thing.name in ("cuml", "triton") and not has_gpu:
        says = "not installed; of use with a GPU only"
    elif state == ABSENT:
        remedy = _if_absent(thing)
    elif state == BROKEN:
        remedy = _if_broken(thing)
    return Finding(name=thing.name, state=state, says=says, required=thing.required, why=thing.why, type=remedy)


def _if_absent(thing: _Thing) -> str:
    if thing.name == "weights":
        return "cleanctl embed SOURCE --download   (once, with network)   or   --model local-dir:DIR"
    if not thing.extra:
        return f"pip install '{thing.package}'" if thing.package else ""
    return (f"{_FFCV_LIBRARIES} && " if thing.name == "ffcv" else "") + install_command(thing.extra)


def _if_broken(thing: _Thing) -> str:
    if thing.name == "cuda":
        return "nvidia-smi   (if it fails: install a driver for this CUDA version, then reboot)"
    if thing.name == "weights":
        return "cleanctl embed SOURCE --download"
    if thing.name == "faiss":
        return f"pip uninstall -y faiss-cpu faiss-gpu && {install_command('cpu')}   (with a GPU: the extra gpu)"
    again = f"pip install --force-reinstall '{thing.package or thing.name}'"
    return f"{_FFCV_LIBRARIES} && {again} --no-deps" if thing.name == "ffcv" else again


def _machine() -> Finding:
    version = platform.python_version()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / _GIB if hasattr(os, "sysconf") else 0
    says = f"{version} on {platform.system()} {platform.machine()}, {cpu_count()} cores, {memory:.0f} GiB"
    good = sys.version_info >= (3, 11)
    remedy = "" if good else "uv venv --python 3.11"
    return Finding(name="python", state=OK if good else BROKEN, says=says, required=True, type=remedy)


def _disk(store: Path) -> Finding:
    """A million images of 512 dimensions take about 1 GiB of store, and their FFCV file far more."""
    here = next(path for path in (store.absolute(), *store.absolute().parents) if path.exists())
    free = shutil.disk_usage(here).free / _GIB
    says = f"{free:.0f} GiB free at {store}"
    if not os.access(here, os.W_OK):
        return Finding(
            name="disk",
            state=BROKEN,
            says=f"{here} cannot be written",
            required=True,
            type="export CLEANCTL_STORE=PATH",
        )
    if free < 1:
        return Finding(
            name="disk", state=ODD, says=f"only {free:.1f} GiB free at {store}", type="export CLEANCTL_STORE=PATH"
        )
    return Finding(name="disk", state=OK, says=says)


def describe_version() -> str:
    return f"cleanctl {__version__}"
