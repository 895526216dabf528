"""A small real store with images in memory: colour blobs that a network learns in seconds."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# `from blobs import …` in the tests of this folder: pytest's importlib mode puts no folder on sys.path.
spec = importlib.util.spec_from_file_location("blobs", Path(__file__).with_name("blobs.py"))
assert spec is not None
assert spec.loader is not None
sys.modules["blobs"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sys.modules["blobs"])


@pytest.fixture
def one_thread() -> Iterator[None]:
    """The tests share two busy cores; one thread is also what makes sums reproducible across machines of a kind."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
