"""What can go wrong, and the exit code that says so.

    CleanctlError
    ├── UsageError          2   the command line (or the arguments of an API call) makes no sense
    ├── InputError          3   images, labels, arrays or weights are not what they must be
    ├── StoreError          4   the store and the request disagree: missing, locked, incomplete, other model
    ├── MissingPackageError 5   something is not installed
    └── InterruptedRun    130   stopped by SIGINT or SIGTERM; finished work is kept

A user's mistake is told in three parts: what was found, what follows from it, what to do. Impossible states are
`assert`s, never one of these.
"""

from __future__ import annotations

from typing import Any


class CleanctlError(Exception):
    """A failure that a person can act on.

    `found` is the fact with the values quoted, `so` its consequence, `do` the remedy; each is one sentence.
    """

    exit_code = 1

    def __init__(self, found: str, *, so: str = "", do: str = "") -> None:
        super().__init__(found, so, do)
        self.found = found
        self.so = so
        self.do = do

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (type(self), self.found, self.so, self.do)  # keyword arguments do not pickle by themselves

    def __str__(self) -> str:
        return " ".join(part for part in (self.found, self.so, self.do) if part)


def _again(kind: type[CleanctlError], found: str, so: str, do: str) -> CleanctlError:
    return kind(found, so=so, do=do)


class UsageError(CleanctlError):
    exit_code = 2


class InputError(CleanctlError):
    exit_code = 3


class StoreError(CleanctlError):
    exit_code = 4


class MissingPackageError(CleanctlError):
    exit_code = 5

    @classmethod
    def of(cls, package: str, *, extra: str, needed_for: str) -> MissingPackageError:
        """The error for an optional `package` that pip would bring with `cleanctl[extra]`."""
        return cls(
            f"The package {package} is not installed.",
            so=f"It is needed for {needed_for}.",
            do=f"Install it with: pip install 'cleanctl[{extra}]'",
        )


class InterruptedRun(CleanctlError):
    exit_code = 130
