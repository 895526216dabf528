"""What the tests of datasets share: every loader."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def layout():
    """The module layouts/NAME.py: how one dataset is distributed."""

    def load(name: str) -> ModuleType:
        place = Path(__file__).parent / "layouts" / f"{name}.py"
        spec = importlib.util.spec_from_file_location(f"layout_{name}", place)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture(scope="session")
def build():
    """(dataset, folder): writes a small copy of a published dataset."""
    from published_copy import copies

    found = {copy.dataset: copy.build for copy in copies()}
    return lambda dataset, folder: found[dataset](folder)


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
