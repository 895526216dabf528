"""Where the kernels' tests run."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture
def device():
    return "cuda" if torch.cuda.is_available() else "cpu"
