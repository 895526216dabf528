"""A small store with its images, which tests copy."""

from __future__ import annotations

import shutil

import pytest

from cleanctl import api
from cleanctl.config import EmbedConfig


@pytest.fixture(scope="session")
def embedded(tmp_path_factory, tiny_model, web_folder):
    """s.zarr and images/, as `embed` made them; read only."""
    root = tmp_path_factory.mktemp("review")
    shutil.copytree(web_folder, root / "images")
    config = EmbedConfig(
        source=root / "images",
        model=f"local-dir:{tiny_model}",
        prompts="photo",
        loader="torch",
        workers=0,
        device="cpu",
    )
    api.embed(config, store=root / "s.zarr")
    return root
