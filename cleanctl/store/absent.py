"""Where there is no store: the ones that lie near, since a folder was changed or a name was mistyped."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from cleanctl.errors import StoreError
from cleanctl.meant import nearest
from cleanctl.paths import DEFAULT_STORE

LEVELS = 4  # folders above that are looked into


def absent(path: Path) -> StoreError:
    """The error for a place without a store, with what to type."""
    named = "" if str(path) == DEFAULT_STORE else f" --store {shlex.quote(str(path))}"
    new = f"one with: cleanctl embed SOURCE{named}"
    near = _near(path)
    if near is None:
        return StoreError(f"There is no store at {path}.", do=f"Make {new}   (or name another with --store).")
    found = shlex.quote(os.path.relpath(near))
    return StoreError(
        f"There is no store at {path}; there is one at {found}.", do=f"Add --store {found}, or make {new}"
    )


def _near(path: Path) -> Path | None:
    """A store beside the place, the only one or one of nearly this name; else one of this name in a folder above."""
    whole = path.absolute()
    beside = {one.name: one for one in whole.parent.glob("*.zarr") if (one / "zarr.json").is_file()}
    name = next(iter(beside)) if len(beside) == 1 else nearest(path.name, beside)
    if name is not None:
        return beside[name]
    above = [folder / path.name for folder in list(whole.parent.parents)[:LEVELS]]
    return next((one for one in above if (one / "zarr.json").is_file()), None)
