"""Published tables as data: tables/*.toml → checked records. Values stand there in per cent, as published.

settings.toml names what a column is made from. A table's file has columns (a setting, the split and the measure) and
rows (a method of cleanctl and its options, or why cleanctl does not run it) with the published values by column.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

from cleanctl.config import Noise
from cleanctl.results.reproduce import Measure
from cleanctl.user_files import checked

FOLDER = Path(__file__).parent / "tables"
LIKE = {"figure3": "T1"}  # a figure of the values of a table


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A dataset with its labels, and how it is treated. seed: of the noise, as the release draws it. recipe: of the
    selection's thresholds and of training; none where nothing is trained. encoder: an open_clip name, OpenAI's weights.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    title: str
    dataset: str
    variant: str | None = None
    noise: str | None = None
    seed: int = 0
    recipe: str | None = None
    encoder: str = "ViT-B-32-quickgelu"
    prompts: str = "features"

    def labels(self) -> Noise | None:
        """The noise as `embed` takes it; UsageError for a kind that this version does not have."""
        return None if self.noise is None else Noise.parse(self.noise)


@dataclass(frozen=True, kw_only=True)
class Column:
    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    id: str
    setting: str
    title: str = ""
    split: str = "test"
    measure: Measure = "top1"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One of: method (trained on what `strategy` selects, or on all), adapt (a preset, F1 of its detector), measure
    without training, mean_of (column → TABLE/ROW/COLUMN of other tables), why it is not run. options: of `train`,
    without a method of `select`. columns: those of a row without published values (default: all).
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    id: str
    title: str
    published: Mapping[str, float] = field(default_factory=dict)
    spread: Mapping[str, float] = field(default_factory=dict)
    method: str | None = None
    strategy: str = "intersection"
    options: Mapping[str, float] = field(default_factory=dict)
    adapt: str | None = None
    columns: tuple[str, ...] = ()
    measure: Measure | None = None
    encoder: str | None = None
    mean_of: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    why: str = ""


@dataclass(frozen=True, kw_only=True)
class Table:
    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    title: str
    source: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()

    def pairs(self) -> Iterator[tuple[Row, Column]]:
        """Row by row: the columns that it has a value for; every column where no value is published."""
        for row in self.rows:
            for column in self.columns:
                wanted = row.published or row.columns
                if not wanted or column.id in wanted:
                    yield row, column


@dataclass(frozen=True)
class _Settings:
    settings: Mapping[str, Setting]


@cache
def settings() -> Mapping[str, Setting]:
    """Every setting by its id."""
    values = tomllib.loads((FOLDER / "settings.toml").read_text("utf-8"))
    return checked("The settings of the tables", {"settings": values}, _Settings).settings


@cache
def load_table(name: str) -> Table:
    """A table by its name, e.g. `T4`; `figure3` has the values of table 1."""
    path = FOLDER / f"{LIKE.get(name, name)}.toml"
    return checked(f"The table {name}", tomllib.loads(path.read_text("utf-8")), Table)


def find_pair(reference: str) -> tuple[Row, Column]:
    """The row and column of `TABLE/ROW/COLUMN`."""
    name, row_id, column_id = reference.split("/")
    table = load_table(name)
    return next((row, column) for row, column in table.pairs() if (row.id, column.id) == (row_id, column_id))
