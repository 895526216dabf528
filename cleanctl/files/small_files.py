"""Small files that a person names: the label table and the class list, by path or URL.

In: a path or URL. Out: its bytes. Nothing is written.
"""

from __future__ import annotations

from cleanctl.errors import InputError
from cleanctl.paths import is_url


def read_file_of(file: str, option: str) -> bytes:
    """The whole file. Raises InputError that names the option."""
    if is_url(file):
        from cleanctl.files.remote import read_url

        return read_url(file)
    try:
        with open(file, "rb") as opened:
            return opened.read()
    except FileNotFoundError as exc:
        raise InputError(f"The file {file!r} does not exist.", do=f"Check the path given to {option}.") from exc
    except OSError as exc:
        raise InputError(f"The file {file!r} cannot be read: {exc.strerror or exc}.") from exc
