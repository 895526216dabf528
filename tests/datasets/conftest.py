"""What the tests of datasets share: every loader."""

from __future__ import annotations

import importlib.util

import pytest


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
