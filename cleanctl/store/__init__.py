"""The Zarr store: schema, atomic writer, reader, provenance."""

from cleanctl.store.split import Blocks, Result, Split
from cleanctl.store.store import Store
from cleanctl.store.writer import SplitWriter

__all__ = ["Blocks", "Result", "Split", "SplitWriter", "Store"]
