"""A method's own numbers: a frozen record of them, filled from a recipe's table `[method]` and from `--set NAME=VALUE`.

    defaults of the method's Settings  <  the recipe's table of the method's name  <  --set

What was in force is part of the recipe in the run's config.json.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from typing import Any

from cleanctl.errors import InputError, UsageError
from cleanctl.registry import METHODS
from cleanctl.user_files import checked


@dataclass(frozen=True, kw_only=True)
class MethodSettings:
    """Base of every method's. A field's annotation gives its type, range and description (pydantic's `Field`)."""

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012


def has_settings(name: str) -> bool:
    """Whether `name` is a method with settings of its own, so that a recipe's table of that name holds them."""
    return name in METHODS and bool(fields(METHODS.load(name).Settings))


def check_table(recipe: str, method: str, table: dict[str, Any]) -> None:
    """InputError where a recipe's table `[method]` has a key or value that the method does not take.

    A key without a default may be missing here: `--set` can give it.
    """
    known = METHODS.load(method).Settings
    checked(f"The recipe {recipe}, table [{method}]", {**_stand_ins(known), **table}, known)


def in_force(method: str, table: dict[str, Any], given: Iterable[str]) -> dict[str, Any]:
    """Every setting of a method with its value. table: the recipe's. given: `NAME=VALUE`, as typed.

    Raises UsageError for a name or value that the method does not take, or a setting that nobody gave.
    """
    typed = dict(parse_setting(text) for text in given)
    known = METHODS.load(method).Settings
    if typed and not fields(known):
        raise UsageError(
            f"--set {next(iter(typed))}=… was given with --method {method}.",
            so="That method has no settings of its own.",
            do="Leave one of them out.",
        )
    try:
        return asdict(checked(f"--method {method} with its settings", {**table, **typed}, known))
    except InputError as exc:
        names = ", ".join(one.name for one in fields(known))
        raise UsageError(exc.found, do=f"Give --set NAME=VALUE with one of: {names}.") from exc


def parse_setting(text: str) -> tuple[str, Any]:
    """`temperature=0.5` → ("temperature", 0.5). Numbers, true and false as in TOML; anything else is text."""
    name, equals, value = text.partition("=")
    if not equals or not name.strip().isidentifier():
        raise UsageError(f"--set is {text!r}.", do="Give NAME=VALUE, e.g. --set temperature=0.5.")
    try:
        found = tomllib.loads(f"value = {value}")["value"]
    except (tomllib.TOMLDecodeError, RecursionError):
        found = value.strip()
    return name.strip(), found if isinstance(found, bool | int | float) else value.strip()


def _stand_ins(known: type) -> dict[str, Any]:
    """The least allowed value of each setting without a default."""
    from pydantic import TypeAdapter

    schema = TypeAdapter(known).json_schema()
    return {name: schema["properties"][name].get("minimum", 0) for name in schema.get("required", ())}
