"""What every result of a verb is: a frozen record that the command line shows, or prints as JSON with `to_json()`."""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass
from typing import Any

_PLAIN = {str, int, float, bool, type(None)}


@dataclass(frozen=True, kw_only=True)
class Result:
    """A verb's result."""

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return {one.name: _plain(getattr(self, one.name)) for one in fields(self)}


def _plain(value: Any) -> Any:
    """Records below as dicts. `dataclasses.asdict` does the same, and copies each of thousands of numbers by itself."""
    if is_dataclass(value):
        return {one.name: _plain(getattr(value, one.name)) for one in fields(value)}
    if isinstance(value, list | tuple):
        return value if set(map(type, value)) <= _PLAIN else type(value)(map(_plain, value))
    return {key: _plain(item) for key, item in value.items()} if isinstance(value, dict) else value
