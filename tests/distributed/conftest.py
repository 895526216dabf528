from __future__ import annotations

import multiprocessing
import os
import sys
from multiprocessing import forkserver
from pathlib import Path

import commands
import pytest

from cleanctl.config import EmbedConfig
from cleanctl.distributed.ray_cluster import ENVIRONMENT

sys.path.insert(0, str(Path(__file__).parent))  # pytest's importlib mode puts no folder on sys.path


@pytest.fixture(autouse=True)
def _empty_caches(empty_caches):
    pass


@pytest.fixture
def quick_spawn(monkeypatch):
    """Processes that the product spawns come from the fork server, and need not load torch and open_clip first.

    Those of whole commands, in the tests of signals and deaths, are spawned.
    """
    get_context = multiprocessing.get_context
    commands.fork_server()
    forkserver.ensure_running()  # the product blocks a signal while it starts a process

    def forked(method=None):
        return commands.fork_server() if method == "spawn" else get_context(method)

    monkeypatch.setattr(multiprocessing, "get_context", forked)


@pytest.fixture
def config(images, model_dir):
    return EmbedConfig(
        source=images, model=f"local-dir:{model_dir}", loader="torch", device="cpu", batch_size=4, workers=0
    )


@pytest.fixture(scope="module")
def ray_processes():
    """Ray, or a skip; in CI a failure. Its actors find what the tests import, and the modules of this folder."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        # Ray would make a token in the home folder once a process; each of these tests has a home folder of its own.
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_AUTH_TOKEN", "0" * 32)
        patch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)]))
        if not os.environ.get("CI"):
            pytest.importorskip("ray")  # reads the above
        yield
