"""What the data tests share: the loaders, a Progress that remembers, object storage."""

from __future__ import annotations

import importlib.util
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # `tars` and others, under pytest's importlib mode
sys.path.insert(0, str(Path(__file__).parent.parent / "images"))  # `odd_images`

from s3 import s3, s3_server  # noqa: F401 — fixtures


def needs(package: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(importlib.util.find_spec(package) is None, reason=f"needs {package}")


LOADERS = [
    "torch",
    pytest.param("ffcv", marks=needs("ffcv")),
    pytest.param("nvjpeg on cpu", marks=needs("torchcodec")),  # all of it but the decoder itself
    pytest.param("nvjpeg", marks=[needs("torchcodec"), pytest.mark.gpu]),
]


class Recorder:
    """A Progress that remembers what it was told."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.warnings: list[str] = []
        self.titles: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def warn(self, text: str) -> None:
        self.warnings.append(text)

    @contextmanager
    def track(self, title, *, total, unit, done=0):
        self.titles.append(title)
        yield self

    def advance(self, amount: int = 1) -> None:
        pass

    def describe(self, text: str) -> None:
        pass


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture(params=LOADERS)
def kind(request) -> str:
    return request.param
