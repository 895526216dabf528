"""The recipe files of the package (`cleanctl/train/recipes/*.toml`) and of users, found by name or path.

A recipe's `[selection]` table travels with it: `select --preset NAME` takes its thresholds from there
(`preset_values`), and `train` reads the rest (cleanctl/train/recipe.py).
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

from cleanctl.errors import InputError, UsageError
from cleanctl.meant import meant
from cleanctl.user_files import read_toml


def recipe_names() -> list[str]:
    return sorted(entry.name[:-5] for entry in _folder().iterdir() if entry.name.endswith(".toml"))


def recipe_text(name_or_file: str, option: str) -> tuple[str, str]:
    """A recipe's short name and its TOML text. option: what asks for it, for messages.

    Raises UsageError where there is neither a recipe of the package nor a file of that name, InputError for a file that
    cannot be read.
    """
    if name_or_file in recipe_names():
        return name_or_file, (_folder() / f"{name_or_file}.toml").read_text("utf-8")
    path = Path(name_or_file)
    try:
        return path.stem, path.read_text("utf-8")
    except FileNotFoundError as exc:
        near = meant(name_or_file, recipe_names())
        raise UsageError(
            f"{option} is {name_or_file!r}, neither a recipe of the package nor a file{near}",
            do=f"Use a path or one of: {', '.join(recipe_names())}.",
        ) from exc
    except (OSError, ValueError) as exc:  # a folder, no permission; not UTF-8, a NUL in the path
        raise InputError(f"The recipe {name_or_file!r} cannot be read: {exc}.") from exc


def read_tables(text: str, name: str) -> dict[str, Any]:
    """The TOML of a recipe as plain values; InputError where it is not TOML."""
    return read_toml(f"The recipe {name}", text)


def preset_values(preset: str) -> dict[str, Any]:
    """Option → value, of a recipe's `[selection]` table; UsageError where it has none."""
    name, text = recipe_text(preset, "--preset")
    table = read_tables(text, name).get("selection")
    if not isinstance(table, dict) or not table:
        raise UsageError(
            f"The recipe {name} sets no thresholds of a selection.",
            do=f"Take another preset, or add a [selection] table to {preset}.",
        )
    return table


def _folder() -> Any:
    return files("cleanctl").joinpath("train", "recipes")
