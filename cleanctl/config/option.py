"""An option is a field of a stage's config: type, default, help and range stand there once.

`option(…)` makes the field, `Config` checks every field when a config is made, from Python or from the command line.
`options_of` reads the declarations back; the command line is built from them (`cleanctl.cli.verb`).
"""

from __future__ import annotations

import math
import os
import types
from collections.abc import Callable, Iterator
from dataclasses import MISSING, Field, dataclass, field, fields
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from cleanctl.errors import UsageError
from cleanctl.registry import Registry

MAX_SEED = 2**32 - 1  # what numpy and torch both take


@dataclass(frozen=True, kw_only=True)
class Option:
    """What a field's metadata declares. `name` is the option as a person types it, e.g. `--batch-size`.

    low, high: closed range. above: open lower end. known: a registry that holds the allowed words, where they are not a
    Literal. parse: text → the field's type. check: (option, value) → UsageError, for what a type and a range cannot
    say. argument: a positional argument of the command line.
    """

    name: str
    help: str
    panel: str = ""
    metavar: str | None = None
    flag: str | None = None
    low: float | None = None
    high: float | None = None
    above: float | None = None
    known: Registry | None = None
    parse: Callable[[str], Any] | None = None
    check: Callable[[str, Any], None] | None = None
    argument: bool = False


def option(default: Any = MISSING, *, help: str, **declared: Any) -> Any:
    """A dataclass field that is an option; `declared` are fields of Option. Without a default it is required."""
    return field(default=default, metadata={"help": help, **declared})


@dataclass(frozen=True)
class Declared:
    """One field of a config class as the command line needs it."""

    field: Field[Any]
    hint: Any
    option: Option

    @property
    def required(self) -> bool:
        return self.field.default is MISSING


def options_of(config: type) -> tuple[Declared, ...]:
    """The options of a config class in the order of its fields."""
    hints = get_type_hints(config)
    return tuple(Declared(one, hints[one.name], _option(one)) for one in fields(config) if "help" in one.metadata)


def _option(one: Field[Any]) -> Option:
    name = one.metadata.get("flag") or f"--{one.name.replace('_', '-')}"
    return Option(name=one.name.upper() if one.metadata.get("argument") else name, **one.metadata)


@dataclass(frozen=True, kw_only=True)
class Config:
    """Base of every stage's config; raises UsageError with the option, the value and what is allowed.

    A value is converted where nothing is lost: text to the type that the option's `parse` gives, to a Path; a whole
    number to float; a list to a tuple.
    """

    def __post_init__(self) -> None:
        for declared in options_of(type(self)):
            value = getattr(self, declared.field.name)
            checked = _checked(declared, value)
            if checked is not value:
                object.__setattr__(self, declared.field.name, checked)
        self.refuse_contradictions()

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


def _checked(declared: Declared, value: Any) -> Any:
    """The value in the field's type, or UsageError."""
    about, kinds = declared.option, tuple(members(declared.hint))
    if value is None and (type(None) in kinds or declared.field.default is None):
        return None
    if about.parse is not None and isinstance(value, str):
        return about.parse(value)
    for kind in sorted(kinds, key=lambda kind: type(value) is not kind):  # a URL stays text where a Path would do
        converted = _converted(value, kind)
        if converted is not None and _in_range(about, converted):
            for item in converted if isinstance(converted, tuple) else (converted,):
                _check_word(about, item)
            return converted
    raise UsageError(f"{about.name} is {value!r}.", do=f"Give {_allowed(declared)}.")


def _check_word(about: Option, item: Any) -> None:
    if about.known is not None:
        about.known.require(item, about.name)
    if about.check is not None:
        about.check(about.name, item)


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


def _in_range(about: Option, value: Any) -> bool:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return True
    if about.above is not None and not value > about.above:
        return False
    return (about.low is None or value >= about.low) and (about.high is None or value <= about.high)


def _allowed(declared: Declared) -> str:
    """What may be given, as `Give …` goes on."""
    about, said = declared.option, []
    for kind in members(declared.hint):
        if get_origin(kind) is Literal:
            said.append(f"one of: {', '.join(get_args(kind))}")
        elif kind in (int, float):
            said.append(("a whole number" if kind is int else "a number") + _range(about))
        elif kind is bool:
            said.append("True or False")
        elif get_origin(kind) is tuple:
            said.append("a tuple of texts")
        elif kind in (str, Path):
            said.append("a text" if kind is str else "a path")
        elif kind is not type(None):
            said.append(f"a {kind.__name__}")
    return " or ".join(dict.fromkeys(said))


def _range(about: Option) -> str:
    """` from 0 to 1`, ` of 1 or more`, ` above 0`, ` above 0, at most 100`."""
    low, high = (None if end is None else f"{end:,}" for end in (about.low, about.high))
    if low is not None:
        return f" from {low} to {high}" if high else f" of {low} or more"
    above = "" if about.above is None else f" above {about.above:g}"
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
        raise UsageError(f"{option} is {value!r}.", do=f"Give one of: {', '.join(choices)}.")


def within(option: str, value: float, low: float, high: float) -> None:
    """Closed range; NaN is outside."""
    if not low <= value <= high:
        raise UsageError(f"{option} is {value}.", do=f"Give a value from {low:g} to {high:g}.")


def at_least(option: str, value: float, low: float) -> None:
    if not value >= low:
        raise UsageError(f"{option} is {value}.", do=f"Give a value of {low:g} or more.")
