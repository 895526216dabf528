"""What a user names, found: the SOURCE (a folder, one file of it, or the URL of either), and single files such as a
label table. Nothing is written.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import BinaryIO

from cleanctl.errors import InputError
from cleanctl.files.keys import Keys
from cleanctl.files.listing import Scan, file_kind
from cleanctl.files.local import LocalStorage
from cleanctl.files.storage import TreeStorage
from cleanctl.paths import is_url
from cleanctl.paths import location as location_of

GIVE = "Give a folder that holds the images, or a tar."


@dataclass(frozen=True)
class Located:
    """location: of the SOURCE itself. storage: the folder. file: the one file of it that the SOURCE names, or None."""

    location: str
    storage: TreeStorage
    file: str | None = None

    @cached_property
    def scan(self) -> Scan:
        """What lies there, listed once."""
        if self.file is None:
            return self.storage.scan()
        kind = file_kind(self.file)
        named = (self.file,)
        return Scan(keys=Keys.of(()), tars=named if kind == "tars" else (), packed=named if kind == "packed" else ())


def locate(source: str) -> Located:
    """Raises InputError where there is nothing."""
    location = location_of(source)
    if is_url(location):
        from cleanctl.files.remote import UrlStorage, refuse_password

        refuse_password(location)
        if file_kind(location) is None:
            return Located(location, UrlStorage(location))
        folder, _, name = location.rpartition("/")
        return Located(location, UrlStorage(folder), name)
    if os.path.isdir(location):
        return Located(location, LocalStorage(location))
    if not os.path.exists(location):
        raise InputError(f"The source {source!r} does not exist.", do=GIVE)
    folder, name = os.path.split(location)
    return Located(location, LocalStorage(folder), name)


def read_named_file(file: str, option: str) -> bytes:
    """A whole file that the user names by path or URL. Raises InputError that names the option."""
    with open_named_file(file, option) as opened:
        return opened.read()


@contextmanager
def open_named_file(file: str, option: str) -> Iterator[BinaryIO]:
    """A file that the user names by path or URL, what lies behind a URL in memory. Raises InputError that names the
    option, also where reading fails."""
    if is_url(file):
        from cleanctl.files.remote import read_url

        yield io.BytesIO(read_url(file))
        return
    try:
        with open(file, "rb") as opened:
            yield opened
    except FileNotFoundError as exc:
        raise InputError(f"The file {file!r} does not exist.", do=f"Check the path given to {option}.") from exc
    except (OSError, ValueError) as exc:
        reason = getattr(exc, "strerror", None) or exc
        raise InputError(
            f"The file {file!r} cannot be read: {reason}.", do=f"Check the path given to {option}."
        ) from exc
