"""What the tests of datasets share: every loader."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest


def load_layout(name: str) -> ModuleType:
    """layouts/NAME.py, whose `build(folder)` writes a dataset as it is shipped, small."""
    place = Path(__file__).parent / "layouts" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"layout_{name}", place)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def layout():
    return load_layout


def needs(package: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(importlib.util.find_spec(package) is None, reason=f"needs {package}")


LOADERS = [
    "torch",
    pytest.param("ffcv", marks=needs("ffcv")),
    pytest.param("nvjpeg on cpu", marks=needs("torchcodec")),  # all of it but the decoder itself
    pytest.param("nvjpeg", marks=[needs("torchcodec"), pytest.mark.gpu]),
]


@pytest.fixture(params=LOADERS)
def kind(request) -> str:
    return request.param
