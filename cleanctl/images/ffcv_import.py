"""FFCV's parts that we use, without three of its habits.

It compiles a dict of two entries as it is imported, four seconds at each start; here it gets a plain one. Its Loader
keeps Python objects for every row, 400 bytes in all (40 GB at a hundred million), which reading through the operating
system's cache never looks at; and compiles a pipeline that has nothing to compute here. `light_loader` leaves both out.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numba.typed
import numpy as np

_typed_dict = numba.typed.Dict
numba.typed.Dict = dict  # FFCV only ever reads that dict from Python
try:
    import ffcv.loader.loader
    from ffcv import _libffcv
    from ffcv.fields.rgb_image import SimpleRGBImageDecoder
    from ffcv.loader import Loader
    from ffcv.memory_managers.os_cache import OSCacheContext, OSCacheManager
    from ffcv.pipeline.allocation_query import AllocationQuery
    from ffcv.pipeline.compiler import Compiler
    from ffcv.pipeline.operation import Operation
finally:
    numba.typed.Dict = _typed_dict

__all__ = ["AllocationQuery", "Loader", "Operation", "SimpleRGBImageDecoder", "_libffcv", "light_loader"]


class _LeanManager(OSCacheManager):
    """Where every sample lies, as two sorted arrays."""

    def __init__(self, reader: Any) -> None:
        self.reader = reader
        table = reader.alloc_table
        order = np.argsort(table["ptr"], kind="stable")
        self.ptrs, self.sizes = table["ptr"][order], table["size"][order]
        self.context = OSCacheContext(self)


@contextmanager
def light_loader() -> Iterator[None]:
    """A Loader made within holds sixteen bytes a row and compiles nothing."""
    before = ffcv.loader.loader.OSCacheManager
    ffcv.loader.loader.OSCacheManager = _LeanManager
    Compiler.set_enabled(False)
    try:
        yield
    finally:
        ffcv.loader.loader.OSCacheManager = before
        Compiler.set_enabled(True)
