"""`open_files`: the images of a store, from what its provenance says of their source, for verbs that come after embed.

The index of tars is taken from beside the store where it still holds; nothing is written.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cleanctl.datasets.webdataset import LAYOUT
from cleanctl.errors import InputError
from cleanctl.files.locate import locate
from cleanctl.files.tar_cache import read_indices
from cleanctl.files.tar_index import LabelFields, index_tar
from cleanctl.files.tar_storage import TarStorage
from cleanctl.records import Storage


def open_files(source: Mapping[str, Any], *, cache: Path | None = None) -> Storage | None:
    """source: a store's provenance, with a Dataset's `root` (its files' location) and `layout`. None if there is
    nothing there any more."""
    location = source.get("root")
    if location is None:
        return None
    try:
        found = locate(location)
        if source.get("layout") != LAYOUT:
            return found.storage
        known = {} if cache is None else read_indices(cache, None)
        indices = []
        for tar in map(found.storage.tar, found.scan.tars):
            index = known.get(tar.name)
            if index is None or index.tar != tar:
                index = index_tar(found.storage, tar, LabelFields(read=False))
            indices.append(index)
        return TarStorage.of(found.location, found.storage, indices)[0]
    except (InputError, OSError):
        return None
