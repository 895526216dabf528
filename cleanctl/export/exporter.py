"""What writes a table: record batches of one schema → a file. Chosen by the name's ending, among `registry.EXPORTERS`.

A new format is one file with a subclass of Exporter, and one line of the registry or an entry point of
`cleanctl.exporters`. A table is whole or absent: it is written beside its place and renamed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from cleanctl.errors import InputError, UsageError
from cleanctl.files.atomic import replacing
from cleanctl.registry import EXPORTERS

if TYPE_CHECKING:
    import pyarrow as pa


class Exporter(ABC):
    """suffix: the ending of its files' names, with the point, in lower case."""

    suffix: ClassVar[str]

    @abstractmethod
    def write(self, path: Path, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> None:
        """Writes all batches to `path`, which is a new file. Raises OSError if the disk refuses."""


def exporter_for(path: Path) -> Exporter:
    """The exporter of that ending, or UsageError."""
    kinds: list[type[Exporter]] = [EXPORTERS.load(name) for name in EXPORTERS.names()]
    for kind in kinds:
        if path.name.lower().endswith(kind.suffix):
            return kind()
    known = " or ".join(kind.suffix for kind in kinds)
    raise UsageError(f"--out is {str(path)!r}.", do=f"Let the name end in {known}.")


def write_table(exporter: Exporter, path: Path, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> None:
    """InputError where `path` cannot be written; what was there before is then still there."""
    try:
        with replacing(path) as partial:
            exporter.write(partial, schema, batches)
    except OSError as exc:
        raise InputError(f"{path} cannot be written: {exc}.", do="Choose another --out.") from exc
