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
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cleanctl import __version__
from cleanctl.progress import SILENT, Progress
from cleanctl.runtime import cpu_count

OK, ABSENT, BROKEN, ODD = "ok", "absent", "broken", "odd"
TIMEOUT = 120.0  # seconds; imports on a cold network disk take most of a minute
_FFCV = "apt-get install -y pkg-config libturbojpeg0-dev libopencv-dev && pip install 'cleanctl[ffcv]'"
_GIB = 2**30


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
    name: str
    why: str
    type: str
    required: bool = False


# In the order of the report. `type` is what to do if it is absent; a broken package is installed anew.
_THINGS = (
    _Thing(name="torch", why="everything that computes", type="pip install 'torch>=2.6'", required=True),
    _Thing(name="torchvision", why="open_clip", type="pip install 'torchvision>=0.21'", required=True),
    _Thing(name="open_clip", why="embeddings", type="pip install 'open_clip_torch>=3.0'", required=True),
    _Thing(name="zarr", why="the store", type="pip install 'zarr>=3.1'", required=True),
    _Thing(name="scikit-learn", why="select", type="pip install 'scikit-learn>=1.5'", required=True),
    _Thing(name="pyarrow", why="label tables, --out", type="pip install 'pyarrow>=18'", required=True),
    _Thing(
        name="weights",
        why="embed, without --model local-dir:DIR",
        type="cleanctl embed SOURCE --download   (once, with network)   or   --model local-dir:DIR",
    ),
    _Thing(name="cuda", why="speed: everything runs on a processor too", type=""),
    _Thing(name="bf16", why="embedding on a processor, 3 times faster", type=""),
    _Thing(name="triton", why="the kernels on a GPU", type="pip install triton"),
    _Thing(name="ffcv", why="reading images several times faster", type=_FFCV),
    _Thing(name="nvjpeg", why="decoding JPEGs on a GPU (--loader nvjpeg)", type="pip install 'cleanctl[gpu]'"),
    _Thing(name="faiss", why="fast exact neighbours (the knn scorer)", type="pip install 'cleanctl[cpu]'"),
    _Thing(name="cuml", why="logistic scores on a GPU", type="pip install 'cleanctl[gpu]'"),
    _Thing(name="remote", why="images behind URLs (s3://, gs://, …)", type="pip install 'cleanctl[remote]'"),
)
# Two children, about equally slow, as most machines have two cores or more.
_CHILDREN = (
    ("torch", "torchvision", "cuda", "bf16", "open_clip", "weights"),
    ("zarr", "pyarrow", "scikit-learn", "faiss", "ffcv", "nvjpeg", "triton", "cuml", "remote"),
)
_REMEDY_IF_BROKEN = {
    "cuda": "nvidia-smi   (if it fails: install a driver for this CUDA version, then reboot)",
    "faiss": "pip uninstall -y faiss-cpu faiss-gpu && pip install 'cleanctl[cpu]'   (with a GPU: 'cleanctl[gpu]')",
    "ffcv": _FFCV.replace("pip install", "pip install --force-reinstall --no-deps ffcv &&  pip install"),
    "weights": "cleanctl embed SOURCE --download",
}


def examine(store: Path, *, progress: Progress = SILENT, timeout: float = TIMEOUT) -> Report:
    found: dict[str, dict[str, Any]] = {}
    with (
        progress.track("Trying what is installed", total=len(_THINGS), unit="things") as task,
        ThreadPoolExecutor(len(_CHILDREN)) as pool,
    ):
        for part in pool.map(lambda names: run_children(names, timeout=timeout), _CHILDREN):
            found |= part
            task.advance(len(part))
    things = [_judge(thing, found[thing.name], has_gpu=found["cuda"]["state"] == OK) for thing in _THINGS]
    return Report(findings=(_machine(), *things, _disk(store)), models=tuple(found["weights"].get("models", ())))


def run_children(names: tuple[str, ...], *, timeout: float) -> dict[str, dict[str, Any]]:
    """Probes by name; after a crash or a hang a new child goes on with those that are left."""
    found: dict[str, dict[str, Any]] = {}
    while left := [name for name in names if name not in found]:
        lines, end = _run_child(left, timeout)
        found |= {line["name"]: line for line in lines if "name" in line}
        begun = [line["begin"] for line in lines if "begin" in line and line["begin"] not in found]
        blame = begun[0] if begun else next((name for name in left if name not in found), None)
        if blame:
            found[blame] = {"name": blame, "state": BROKEN, "says": end}
    return found


def _run_child(names: list[str], timeout: float) -> tuple[list[dict[str, Any]], str]:
    """The lines that a child reported, and how it ended."""
    command = [sys.executable, "-P", "-m", "cleanctl.doctor.probes", *names]  # -P: what lies here hides no library
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONFAULTHANDLER": "0"}
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout, check=False)
        output, code = done.stdout, done.returncode
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        end = f"its process died: {_signal_name(-code)}" if code < 0 else f"its process ended with {code}: {last}"
    except subprocess.TimeoutExpired as exc:
        # Typed as str, delivered as bytes (python/cpython issue 87597).
        output = exc.stdout.decode() if isinstance(exc.stdout, bytes) else exc.stdout or ""
        end = f"no answer within {timeout:.0f} s"
    return [json.loads(line) for line in output.splitlines()], end


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _judge(thing: _Thing, found: dict[str, Any], *, has_gpu: bool) -> Finding:
    state, says, remedy = found["state"], found["says"], ""
    if state == ABSENT:
        remedy = thing.type
        if thing.name in ("cuml", "triton") and not has_gpu:
            says, remedy = "not installed; of use with a GPU only", ""
    if state == BROKEN:
        package = thing.type.partition("pip install ")[2].strip("'") or thing.name
        remedy = _REMEDY_IF_BROKEN.get(thing.name, f"pip install --force-reinstall '{package}'")
    return Finding(name=thing.name, state=state, says=says, required=thing.required, why=thing.why, type=remedy)


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
