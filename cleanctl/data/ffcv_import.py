"""FFCV's parts that we use, imported without the four seconds that FFCV takes to compile a dict of two entries."""

from __future__ import annotations

import numba.typed

_typed_dict = numba.typed.Dict
numba.typed.Dict = dict  # FFCV only ever reads that dict from Python
try:
    from ffcv import _libffcv
    from ffcv.fields.rgb_image import SimpleRGBImageDecoder
    from ffcv.loader import Loader
    from ffcv.pipeline.allocation_query import AllocationQuery
    from ffcv.pipeline.operation import Operation
finally:
    numba.typed.Dict = _typed_dict

__all__ = ["AllocationQuery", "Loader", "Operation", "SimpleRGBImageDecoder", "_libffcv"]
