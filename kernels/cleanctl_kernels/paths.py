"""Which implementation a device gets, in words that a run can note. Leaves nothing on disk."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec


@cache
def has_triton() -> bool:
    """Whether triton can be found; it is imported only where a kernel is launched."""
    return find_spec("triton") is not None


def uses_triton(device: str) -> bool:
    return device.startswith("cuda") and has_triton()


def path_taken(device: str) -> str:
    """What a note says of the path on `device` (`cpu`, `cuda`)."""
    if uses_triton(device):
        return "Triton kernel"
    return "blocked products" if device == "cpu" else "blocked PyTorch (triton is not installed)"
