from __future__ import annotations

import pytest

from cleanctl.config import EmbedConfig


@pytest.fixture(autouse=True)
def _empty_caches(empty_caches):
    pass


@pytest.fixture
def config(images, model_dir):
    return EmbedConfig(
        source=images, model=f"local-dir:{model_dir}", loader="torch", device="cpu", batch_size=4, workers=0
    )
