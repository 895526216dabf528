"""What a person meant by a name that is not known: every message that refuses a name ends its sentence with this."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

LIKENESS = 0.6  # of difflib's ratio: one wrong letter of three, two of seven


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known name that is most like `word`, whatever their capitals; None where none is."""
    by_lower = {name.casefold(): name for name in known}
    near = difflib.get_close_matches(word.casefold(), by_lower, n=1, cutoff=LIKENESS)
    return by_lower[near[0]] if near else None


def meant(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?`, or a full stop: the end of a sentence that says that `word` is not known."""
    near = nearest(word, known)
    return "." if near is None else f"; did you mean {near!r}?"
