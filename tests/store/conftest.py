from __future__ import annotations

import sys
from pathlib import Path

import pytest

from cleanctl.store import schema

sys.path.insert(0, str(Path(__file__).parent))  # `rows`, under pytest's importlib mode


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch):
    """Blocks of 64 rows, so that a few hundred rows fill several."""
    monkeypatch.setattr(schema, "BLOCK_ROWS", 64)
    monkeypatch.setattr(schema, "CHUNK_ROWS", 16)
