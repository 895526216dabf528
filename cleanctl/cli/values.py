"""What was typed for an option as the option's kind, without pydantic.

typer 0.20 and later convert each value by pydantic, which takes as long to load as all else that reads a command line.
Texts, paths, switches and numbers need no such thing, and what is wrong with a number is said in our words.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from cleanctl.errors import UsageError

KINDS: dict[Any, Callable[[Any], Any]] = {
    str: str,
    bool: bool,
    int: int,
    float: float,
    Path: Path,
    list[str]: list,
}
WANTED = {int: "a whole number", float: "a number, such as 0.5"}


class PlainValues:
    """In the place of typer's own converter of a parameter."""

    def __init__(self, kind: Any) -> None:
        self._kind = kind

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        if value is None:
            return () if param.multiple or param.nargs == -1 else None
        try:
            return KINDS[self._kind](value)
        except ValueError as exc:
            raise UsageError(f"{param.opts[0]} is {value!r}.", do=f"Give {WANTED[self._kind]}.") from exc


def convert_plainly(parameters: Iterable[Any]) -> None:
    """Gives every parameter of a command such a converter. Other versions of typer have another attribute, or none:
    they convert as they did."""
    for one in parameters:
        kind = getattr(getattr(one, "type_descriptor", None), "annotation", None)
        if hasattr(one, "_runtime_param") and kind in KINDS:
            one._runtime_param = PlainValues(kind)
