from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # `tiny`, under pytest's importlib mode

import tiny


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory):
    return tiny.write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="session")
def other_model_dir(tmp_path_factory):
    return tiny.write_model(tmp_path_factory.mktemp("other-model"), seed=1)


@pytest.fixture
def images(tmp_path):
    return tiny.write_images(tmp_path / "images")


@pytest.fixture
def recorder():
    return tiny.Recorder()


@pytest.fixture(autouse=True)
def _empty_caches(tmp_path, monkeypatch):
    """No test depends on weights that happen to lie on this disk, and none reaches for the network."""
    from huggingface_hub import constants

    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
