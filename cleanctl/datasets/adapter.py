"""`DatasetAdapter`: one kind of dataset, from what lies at a SOURCE to a Dataset, and back to its files later.

A new dataset is one file with a subclass and one line of `registry.DATASETS`; or both in a package of its own, with
the entry point group `cleanctl.datasets`. Its rows may be files, members of tars, or bytes inside an archive: whatever
its `Storage` reads by key.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from cleanctl.datasets.columns import read_classes
from cleanctl.datasets.label_table import LabelTable, read_table
from cleanctl.errors import InputError
from cleanctl.files.listing import Scan
from cleanctl.files.locate import GIVE, Located
from cleanctl.progress import SILENT, Progress
from cleanctl.records import Dataset, Storage


@dataclass(frozen=True, kw_only=True)
class DatasetRequest:
    """What was asked for; files are read when an adapter first looks at them, and once. cache: of the index of tars.

    seed: of a variant that is drawn at random.
    """

    located: Located
    variant: str | None = None
    seed: int = 0
    labels: Path | str | None = None
    label_column: str = "label"
    truth_column: str | None = None
    classes_file: Path | str | None = None
    cache: Path | None = None
    progress: Progress = SILENT

    @property
    def scan(self) -> Scan:
        """The images and tars of the source."""
        return self.located.scan

    @cached_property
    def classes(self) -> tuple[str, ...] | None:
        """The names of `--classes`, in label order."""
        return None if self.classes_file is None else read_classes(self.classes_file)

    @cached_property
    def table(self) -> LabelTable | None:
        """The rows of `--labels`."""
        if self.labels is None:
            return None
        root = self.located.location
        return read_table(self.labels, root=root, label_column=self.label_column, truth_column=self.truth_column)


class DatasetAdapter(ABC):
    """Adapters are made without arguments and keep no state.

    takes: the options, besides `--split` and `--noise`, that it follows; others are refused beside it.
    general: it takes whatever no other adapter recognises; such are asked last, in the registry's order.
    """

    takes: ClassVar[tuple[str, ...]] = ("--classes",)
    general: ClassVar[bool] = False

    def recognise(self, request: DatasetRequest) -> bool:
        """Whether the source is of this kind; False for one that must be asked for by name."""
        return False

    @abstractmethod
    def open(self, request: DatasetRequest) -> Dataset:
        """The dataset, with sorted keys in each split. Raises InputError or UsageError."""

    def reopen(self, located: Located, *, cache: Path | None) -> Storage:
        """The files of a store that was filled from such a dataset. Raises InputError or OSError."""
        return located.storage


def refuse_file(located: Located) -> None:
    """InputError where the SOURCE is one file."""
    if located.file is not None:
        raise InputError(f"The source {located.location!r} is a file and no tar.", do=GIVE)
