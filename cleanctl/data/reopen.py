"""`open_files`: the images of a store, from what its provenance says of their source, for verbs that come after embed.

Nothing is written.
"""

from __future__ import annotations

import os

from cleanctl.data.files import FolderFiles
from cleanctl.records import ImageFiles


def open_files(location: str | None, layout: str | None) -> ImageFiles | None:
    """`location` and `layout` are a Dataset's; None if there is nothing at the location any more."""
    if location is None or not os.path.isdir(location):
        return None
    return FolderFiles(location)
