"""What every result of a verb is: a frozen record that the command line shows, or prints as JSON with `to_json()`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Result:
    """A verb's result."""

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return asdict(self)
