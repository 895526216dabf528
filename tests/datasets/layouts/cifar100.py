"""CIFAR-100 as its page ships it for Python, small."""

from __future__ import annotations

import importlib.util
from pathlib import Path

_SPEC = importlib.util.spec_from_file_location("cifar", Path(__file__).with_name("cifar.py"))
cifar = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(cifar)


def build(folder: Path) -> None:
    cifar.build_cifar100(folder)
