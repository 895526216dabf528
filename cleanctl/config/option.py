"""An option is a field of a stage's config: type, default, help and range stand there once.

`option(…)` makes the field, `Config` checks every field when a config is made, from Python or from the command line.
`options_of` reads the declarations back; the command line is built from them (`cleanctl.cli.verb`).
"""

from __future__ import annotations

import math
import os
import types
from collections.abc import Callable, Iterator
from dataclasses import MISSING, dataclass, field, fields
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from cleanctl.errors import UsageError
from cleanctl.meant import meant
from cleanctl.registry import Registry

REQUIRED: Any = MISSING
MAX_SEED = 2**32 - 1  # what numpy and torch both take


@dataclass(frozen=True, kw_only=True)
class Option:
    """One declared field. flag: as a person types it, `--batch-size`; without `--` it is a positional argument.

    low, high: closed range. above: open lower end. known: a registry that holds the allowed words, where they are not a
    Literal. parse: text → the field's type. check: (flag, value) → UsageError, for what a type and a range cannot say.
    usual: what a field without a value gets where the config's preset has none for it; such a field's default is None.
    """

    field: str
    hint: Any
    default: Any
    help: str
    panel: str
    flag: str
    metavar: str | None = None
    low: float | None = None
    high: float | None = None
    above: float | None = None
    known: Registry | None = None
    parse: Callable[[str], Any] | None = None
    check: Callable[[str, Any], None] | None = None
    usual: Any = None


def option(default: Any, help: str, panel: str = "", **declared: Any) -> Any:
    """A dataclass field that is an option; `panel` is its heading in the help, `declared` are fields of Option."""
    return field(default=default, metadata={"help": help, "panel": panel, **declared})


def options_of(config: type) -> tuple[Option, ...]:
    """The options of a config class in the order of its fields."""
    hints = get_type_hints(config)
    return tuple(
        Option(field=one.name, hint=hints[one.name], default=one.default, **{"flag": _flag(one.name), **one.metadata})
        for one in fields(config)
    )


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


@dataclass(frozen=True, kw_only=True)
class Config:
    """Base of every stage's config; raises UsageError with the option, the value and what is allowed.

    A value is converted where nothing is lost: text to the type that the option's `parse` gives, to a Path; a whole
    number to float; a list to a tuple.
    """

    def __post_init__(self) -> None:
        options = options_of(type(self))
        for one in options:
            object.__setattr__(self, one.field, _checked(one, getattr(self, one.field)))
        preset = self.preset_values()
        for one in options:
            value = preset.get(one.field, one.usual)
            if value is not None and getattr(self, one.field) is None:
                object.__setattr__(self, one.field, _checked(one, value))
        self.refuse_contradictions()

    def preset_values(self) -> dict[str, Any]:
        """Field → value, for fields that were left out."""
        return {}

    def refuse_contradictions(self) -> None:
        """Raises UsageError where options that are right alone do not go together."""

    def as_json(self) -> dict[str, Any]:
        """The config as plain JSON values, for provenance."""
        return {one.name: _plain(getattr(self, one.name)) for one in fields(self)}


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


# ---- one value against its declaration


def _checked(one: Option, value: Any) -> Any:
    """The value in the field's type, or UsageError."""
    kinds = tuple(members(one.hint))
    if value is None and (type(None) in kinds or one.default is None):
        return None
    if one.parse is not None and isinstance(value, str):
        return one.parse(value)
    for kind in sorted(kinds, key=lambda kind: type(value) is not kind):  # a URL stays text where a Path would do
        converted = _converted(value, kind)
        if converted is not None and _in_range(one, converted):
            for item in converted if isinstance(converted, tuple) else (converted,):
                if one.known is not None:
                    one.known.require(item, one.flag)
                if one.check is not None:
                    one.check(one.flag, item)
            return converted
    words = [word for kind in kinds if get_origin(kind) is Literal for word in get_args(kind)]
    end = meant(value, words) if isinstance(value, str) else "."
    raise UsageError(f"{one.flag} is {value!r}{end}", do=f"Give {_allowed(one)}.")


def members(hint: Any) -> Iterator[Any]:
    """The types that a hint allows: those of a union, None among them, else itself."""
    if get_origin(hint) in (Union, types.UnionType):
        for member in get_args(hint):
            yield from members(member)
    else:
        yield hint


def _converted(value: Any, kind: Any) -> Any:
    """The value as `kind`, None where it is not one. A bool is no number, NaN and infinity are none either."""
    if get_origin(kind) is Literal:
        return value if isinstance(value, str) and value in get_args(kind) else None
    if get_origin(kind) is tuple:
        items = [_converted(item, get_args(kind)[0]) for item in value] if isinstance(value, list | tuple) else [None]
        return None if None in items else tuple(items)
    if kind is float:
        number = isinstance(value, Real) and not isinstance(value, bool)
        return float(value) if number and abs(value) < math.inf else None
    if kind is int:
        return int(value) if isinstance(value, Integral) and not isinstance(value, bool) else None
    if kind is Path:
        return value if isinstance(value, Path) else Path(value) if isinstance(value, os.PathLike | str) else None
    return value if isinstance(value, kind) else None


def _in_range(one: Option, value: Any) -> bool:
    if not isinstance(value, int | float):
        return True
    above = one.above is None or value > one.above
    return above and (one.low is None or value >= one.low) and (one.high is None or value <= one.high)


def _allowed(one: Option) -> str:
    """What may be given, as `Give …` goes on."""
    words = {int: "a whole number", float: "a number", bool: "True or False", str: "a text", Path: "a path"}
    said = []
    for kind in members(one.hint):
        if get_origin(kind) is Literal:
            said.append(f"one of: {', '.join(get_args(kind))}")
        elif get_origin(kind) is tuple:
            said.append("a tuple of texts")
        elif kind is not type(None):
            said.append(words.get(kind, f"a {kind.__name__}") + (_range(one) if kind in (int, float) else ""))
    return " or ".join(said)


def _range(one: Option) -> str:
    """` from 0 to 1`, ` of 1 or more`, ` above 0`, ` above 0, at most 100`."""
    high = "" if one.high is None else f"{one.high:,}"
    if one.low is not None:
        return f" from {one.low:,} to {high}" if high else f" of {one.low:,} or more"
    above = "" if one.above is None else f" above {one.above:g}"
    return f"{above}, at most {high}" if high else above


# ---- checks that others make too


def require_plain_name(option: str, name: str, *, most: int = 200, kept: tuple[str, ...] = ()) -> None:
    """UsageError unless `name` can be the name of one folder: a split's, a selection's, a run's.

    Refuses what would leave the store's folder (`..`, `a/b`), what a terminal would obey (control characters), what
    a file system does not take (more than `most` bytes), and what Zarr or the store keeps for itself (`kept`).
    """
    wrong = ""
    if not name or name != name.strip():
        wrong = "is empty, or begins or ends with a blank"
    elif "/" in name or "\\" in name:
        wrong = "holds a slash, so it would be a path"
    elif name.startswith(("__", ".")) or name in ("zarr.json", *kept):
        wrong = "is kept for the store's own files"
    elif not name.isprintable():
        wrong = "holds a control character"
    elif len(name.encode()) > most:
        wrong = f"has {len(name.encode())} bytes, more than {most}"
    if wrong:
        shown = name if len(name) <= 40 else f"{name[:40]}…"
        raise UsageError(f"{option} is {shown!r}, which {wrong}.", do="Give a name of letters, digits and - _ . = &.")


def one_of(option: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise UsageError(f"{option} is {value!r}{meant(value, choices)}", do=f"Give one of: {', '.join(choices)}.")


def within(option: str, value: float, low: float, high: float) -> None:
    """Closed range; NaN is outside."""
    if not low <= value <= high:
        raise UsageError(f"{option} is {value}.", do=f"Give a value from {low:g} to {high:g}.")
