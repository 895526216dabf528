"""stdout and stderr as a shell may leave them: closed, full, or unable to hold a letter.

A run of hours does not end because its log lies on a full disk, and a result that was computed is shown in the letters
that the stream has. Only the console script does this: who calls cleanctl from Python keeps their own streams.
"""

from __future__ import annotations

import codecs
import errno
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from cleanctl.errors import StoreError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
PLAIN = {
    "–": "-", "—": "-", "−": "-", "─": "-", "━": "-", "·": "-", "…": "...", "≈": "~", "×": "x", "±": "+-",
    "↔": "<->", "→": "->", "✓": "+", "≥": ">=", "≤": "<=", "├": "|", "└": "`", "│": "|", "▶": ">", "≠": "!=",
    "╸": "-", "╺": "-",
}  # fmt: skip


def prepare() -> None:
    """To be called before anything is opened or written."""
    _open_what_is_closed()
    codecs.register_error("cleanctl.plain", _plainer)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and (stream.errors == "strict" or not in_utf8(stream)):
            stream.reconfigure(errors="cleanctl.plain")
    sys.stderr = _forgiving(sys.stderr)


def in_utf8(stream: object) -> bool:
    return codecs.lookup(getattr(stream, "encoding", None) or "utf-8").name == "utf-8"


@contextmanager
def telling() -> Iterator[None]:
    """While a result is written to stdout: a StoreError where it takes nothing. A reader that went away is none."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise unwritable(error) from error


def unwritable(error: OSError) -> StoreError:
    return StoreError(
        f"Standard output cannot be written: {error.strerror}.",
        so="What the command did is done and kept; what it tells of that is lost.",
        do="Make room, or send it elsewhere.",
    )


def _open_what_is_closed() -> None:
    """As `<&-` and `>&-` leave them; else the next file that is opened would be taken for the stream."""
    place = os.open(os.devnull, os.O_RDWR)
    while place <= 2:
        place = os.dup(place)
    os.close(place)
    if sys.stdout is None:
        sys.stdout = io.TextIOWrapper(io.FileIO(1, "w", closefd=False), encoding="utf-8", write_through=True)
    if sys.stderr is None:
        sys.stderr = io.TextIOWrapper(io.FileIO(2, "w", closefd=False), encoding="utf-8", write_through=True)


def _plainer(error: UnicodeError) -> tuple[str, int]:
    """Letters that the stream's encoding lacks: the ones nearest to them, else an escape."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    letter = error.object[error.start]
    return PLAIN.get(letter) or letter.encode("ascii", "backslashreplace").decode(), error.start + 1


class _Forgiving(io.FileIO):
    """A file whose lines may be lost where no room is left."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError as error:
            if error.errno not in FULL:
                raise
            return memoryview(data).nbytes


def _forgiving(stream: TextIO) -> TextIO:
    if not isinstance(stream, io.TextIOWrapper) or stream.isatty():
        return stream
    stream.flush()
    file = io.BufferedWriter(_Forgiving(stream.fileno(), "w", closefd=False))
    return io.TextIOWrapper(file, encoding=stream.encoding, errors=stream.errors, line_buffering=True)
