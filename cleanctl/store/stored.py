"""Scores and selections of a split by name: typed to those who read them, arrays and attributes on disk.

`split.scores.read(name)` is a StoredScore, `split.selections.read(name)` a StoredSelection; both hold one value a row
of the split. A result is replaced whole or not at all, and read whole: every chunk is checked.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import zarr

from cleanctl.errors import StoreError
from cleanctl.meant import meant
from cleanctl.store import schema
from cleanctl.store.arrays import open_group, read, write_column
from cleanctl.store.files import (
    SELECT_AGAIN,
    DamageError,
    DurableStore,
    discard,
    finish_swap,
    fresh_path,
    pinned_exists,
    swap_in,
)
from cleanctl.store.locks import writer_lock

COLUMNS = "columns"  # attribute: the arrays of a result, in order; results of older stores have none


class Columns(Mapping[str, np.ndarray]):
    """The arrays of a stored result in the order they were written, each read when it is asked for, and not kept."""

    def __init__(self, store: DurableStore, row_M: np.ndarray | None = None) -> None:
        """row_M: which rows of each array; None is all of them."""
        self._store, self._row_M, self._group = store, row_M, open_group(store)
        self.attributes: dict[str, Any] = dict(self._group.attrs)
        names = self.attributes.pop(COLUMNS, None) or sorted(
            entry.name for entry in store.root.iterdir() if entry.is_dir() and not entry.name.startswith(".")
        )
        self._names = tuple(map(str, names))

    def at(self, row_M: np.ndarray) -> Columns:
        """The same of some rows."""
        return Columns(self._store, row_M)

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self._names:
            raise KeyError(name)
        values_N = read(self._group, name)
        return values_N if self._row_M is None else values_N[self._row_M]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


@dataclass(frozen=True, kw_only=True)
class Result:
    """arrays: name → (N,). attributes: what made them."""

    name: str
    arrays: dict[str, np.ndarray]
    attributes: dict[str, Any]

    @property
    def stale(self) -> bool:
        """Made before images or labels of the split changed."""
        return bool(self.attributes.get("stale"))


@dataclass(frozen=True, kw_only=True)
class StoredScore(Result):
    """What a scorer says of each row; NaN, or -1 where integers are, in rows that are not OK.

    `arrays` has what a scorer brings of its own beside the columns named here.
    """

    def at(self, rows: np.ndarray) -> StoredScore:
        """The same of some rows."""
        arrays = {key: values[rows] for key, values in self.arrays.items()}
        return StoredScore(name=self.name, arrays=arrays, attributes=self.attributes)

    @property
    def p_label(self) -> np.ndarray:
        """float32: probability of the given label. Raises KeyError for a score that has none (similarity)."""
        return self.arrays["p_label"]

    @property
    def clean(self) -> np.ndarray:
        """float32: posterior of the class's clean mixture component."""
        return self.arrays["clean"]

    @property
    def scaled(self) -> np.ndarray:
        """float32 in [0, 1]: ln P(label), min-max scaled inside the class."""
        return self.arrays["scaled"]


@dataclass(frozen=True, kw_only=True)
class RuleColumns:
    """Of one rule. score: float32. keep: bool. posterior: float32 in [0, 1], where the rule has one (loss)."""

    score: np.ndarray
    keep: np.ndarray
    posterior: np.ndarray | None


@dataclass(frozen=True, kw_only=True)
class StoredSelection(Result):
    """keep: bool. suggested: int32, -1 in rows that are not OK. p_label, p_max: float32. votes: int16. Of people's
    verdicts that it obeyed: verdict int8, verdict_label int32, unreviewed bool (cleanctl.selection.review)."""

    @property
    def keep(self) -> np.ndarray:
        return self.arrays["keep"].astype(bool)

    @property
    def suggested(self) -> np.ndarray:
        return self.arrays["suggested"]

    @property
    def p_label(self) -> np.ndarray:
        return self.arrays["p_label"]

    @property
    def p_max(self) -> np.ndarray:
        return self.arrays["p_max"]

    @property
    def votes(self) -> np.ndarray:
        return self.arrays["votes"]

    @property
    def verdict(self) -> np.ndarray:
        return self.arrays.get("verdict", np.zeros(len(self.arrays["keep"]), np.int8))

    @property
    def verdict_label(self) -> np.ndarray:
        return self.arrays.get("verdict_label", np.full(len(self.arrays["keep"]), -1, np.int32))

    @property
    def unreviewed(self) -> np.ndarray:
        """What it would keep without verdicts."""
        return self.arrays.get("unreviewed", self.arrays["keep"]).astype(bool)

    @property
    def rules(self) -> dict[str, RuleColumns]:
        """rule → its columns, in the order of the strategy."""
        names = [key.removesuffix(".score") for key in self.arrays if key.endswith(".score")]
        return {
            name: RuleColumns(
                score=self.arrays[f"{name}.score"],
                keep=self.arrays[f"{name}.keep"].astype(bool),
                posterior=self.arrays.get(f"{name}.posterior"),
            )
            for name in names
        }


@dataclass(frozen=True, kw_only=True)
class StoredSample(Result):
    """Labels drawn for people to look at. stratum: int16, -1 in rows that are not part of it. place: int32, 1 for the
    label to look at first, 0 where it is not drawn. chance: float32, of being drawn (cleanctl.review.sample)."""

    @property
    def stratum(self) -> np.ndarray:
        return self.arrays["stratum"]

    @property
    def keep(self) -> np.ndarray:
        """bool: what the selection kept when the sample was drawn."""
        return self.arrays["keep"].astype(bool)

    @property
    def place(self) -> np.ndarray:
        return self.arrays["place"]

    @property
    def selection(self) -> str:
        """The name of the selection that it was drawn for."""
        return str(self.attributes["selection"])


AnyResult = TypeVar("AnyResult", bound=Result)


class Results(Generic[AnyResult]):
    """The scores, the selections or the samples of a split. path: the split's folder, or what a reader pinned of it,
    which lasts as long as `pin`."""

    def __init__(
        self, store_path: Path, split: str, kind: str, record: type[AnyResult], path: Path, pin: object = None
    ) -> None:
        self._pin = pin
        self._store_path, self._split, self._record = store_path, split, record
        self._kind, self._one = kind, kind[:-1]
        self._shown = store_path / split / kind
        self._reading = path / kind

    def attributes(self, *, damaged: bool = True) -> dict[str, dict[str, Any]]:
        """name → attributes of each, oldest first. damaged: raise DamageError for one that is, else leave it out."""
        found = []
        for folder in sorted(_folders(self._reading)):
            try:
                values: dict[str, Any] = dict(open_group(self._open(folder)).attrs)
                found.append((int(values["sequence"]), str(values["name"]), values))
            except (KeyError, TypeError, ValueError) as exc:
                if damaged:
                    raise DamageError.of(self._shown / folder, "it lacks its name or number", SELECT_AGAIN) from exc
            except DamageError:
                if damaged:
                    raise
        return {name: values for _, name, values in sorted(found, key=lambda item: item[0])}

    def usable(self, name: str) -> dict[str, Any] | None:
        """Attributes of a result that is there and whole; None if it has to be computed (again)."""
        try:
            columns = self.columns(name)
            for _ in columns.values():  # each is checked as it is read
                pass
        except StoreError:
            return None
        return columns.attributes

    def read(self, name: str) -> AnyResult:
        """Raises StoreError if there is none of this name, DamageError if any of it is damaged."""
        columns = self.columns(name)
        return self._record(name=name, arrays=dict(columns), attributes=columns.attributes)

    def columns(self, name: str) -> Columns:
        """The same, array by array: damage is found when an array is read."""
        folder = schema.safe_name(name)
        if not pinned_exists(self._reading / folder):
            there = tuple(self.attributes(damaged=False))
            here = ", ".join(there) or "none"
            raise StoreError(
                f"Split {self._split!r} of {self._store_path} has no {self._one} named {name!r}; "
                f"it has: {here}{meant(name, there)}",
                do="Make one with: cleanctl select" if self._one == "selection" else "Run cleanctl select again.",
            )
        return Columns(self._open(folder))

    def write(self, name: str, arrays: Mapping[str, np.ndarray], attributes: Mapping[str, Any]) -> None:
        """Stores arrays of length N under a name in place of an older result of that name."""
        final = self._shown / schema.safe_name(name)
        with writer_lock(self._store_path):
            finish_swap(final)
            last = max((int(a.get("sequence", 0)) for a in self.attributes(damaged=False).values()), default=0)
            about = {**attributes, "name": name, "sequence": last + 1, "stale": False}
            create_result(fresh_path(final), arrays, about)
            swap_in(final)

    def _open(self, folder: str) -> DurableStore:
        return DurableStore.pinned(self._reading / folder, shown=self._shown / folder, do=SELECT_AGAIN)


def create_result(path: Path, arrays: Mapping[str, np.ndarray], attributes: Mapping[str, Any]) -> None:
    """A new folder with a result; an older one at `path` is deleted."""
    discard(path)
    if not (path.parent / "zarr.json").exists():
        zarr.create_group(DurableStore(path.parent))
    group = zarr.create_group(DurableStore(path), attributes={**attributes, COLUMNS: list(arrays)})
    for key, values in arrays.items():
        write_column(group, key, values, np.asarray(values).dtype.name, chunk_rows=schema.BLOCK_ROWS)


def read_result(store: DurableStore) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Arrays in the order they were written, and attributes."""
    columns = Columns(store)
    return dict(columns), columns.attributes


def _folders(kind: Path) -> list[str]:
    """Names of the results; `.x.old` without `x` is one that a crash moved away."""
    if not kind.is_dir():
        return []
    names = {entry.name for entry in kind.iterdir() if entry.is_dir()}
    moved = {name.removeprefix(".").removesuffix(".old") for name in names if name.endswith(".old")}
    return sorted({name for name in names if not name.startswith(".")} | moved)
