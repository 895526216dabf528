from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _empty_caches(empty_caches):
    pass
