"""Packages whose names are imported when they are asked for, so that a verb loads its own config and result alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def importing(package: str, files: Mapping[str, str]) -> Callable[[str], Any]:
    """`__getattr__` of a package. files: a file of the package → the names that lie in it, with blanks between."""
    places = {name: file for file, names in files.items() for name in names.split()}

    def get(name: str) -> Any:
        if name not in places:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(f"{package}.{places[name]}"), name)

    return get
