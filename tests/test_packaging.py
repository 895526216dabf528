"""The extras can be installed together at the versions of constraints.txt: asked of uv, which asks the registry."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
NO_NETWORK = re.compile("error sending request|dns error|Failed to fetch|Could not connect|network was disabled")


@pytest.mark.parametrize(("device", "other"), [("cpu", "gpu"), ("gpu", "cpu")])
def test_every_combination_of_extras_resolves(device, other):
    """All that may stand together do, and each version is one of constraints.txt: so do fewer of them."""
    if shutil.which("uv") is None:
        pytest.skip("uv is not installed")
    command = ["uv", "pip", "compile", "--quiet", "--no-annotate", "--no-header", "--no-emit-index-url"]
    command += ["--python", sys.executable, "--constraint", "constraints.txt", "pyproject.toml"]
    command += [word for extra in EXTRAS if extra != other for word in ("--extra", extra)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280)
    if NO_NETWORK.search(done.stderr):
        pytest.skip(f"the package registry is out of reach: {done.stderr.strip().splitlines()[-1]}")
    if "Failed to build `ffcv" in done.stderr:
        pytest.skip("FFCV's system libraries are missing, so its dependencies are unknown")
    assert done.returncode == 0, done.stderr
    assert any(line.startswith(f"faiss-{device}==") for line in done.stdout.splitlines())
    assert set(done.stdout.split()) <= set((ROOT / "constraints.txt").read_text().split())
