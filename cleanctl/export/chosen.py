"""Which samples of a selection are exported, and with which label: filters → Chosen.

Legend: N rows of the split, M chosen samples.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cleanctl.config import ExportConfig
from cleanctl.config.export import RuleFilter
from cleanctl.errors import InputError, StoreError, UsageError
from cleanctl.files.keys import Keys
from cleanctl.files.local import LocalStorage
from cleanctl.meant import meant
from cleanctl.progress import SILENT, Progress
from cleanctl.records import FileContent, Storage
from cleanctl.selection.review import obey
from cleanctl.store import Split, Store
from cleanctl.store.standing import UNDECIDED
from cleanctl.store.stored import StoredSelection

READ_AT_ONCE = 256


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """label_M: int64, as exported; given_M as it came; suggested_M the likely one. p_label_M, p_max_M: float32.
    keep_M: bool, by the selection and people. verdict_M: int8, codes of `store.standing`. row_M: int64, in the split.
    files: where the images are, None where they are not. transition: joint's pairs of classes, as in the selection's
    summary (`results.Transition`), None where joint was not the evidence.
    """

    split: str
    selection: str
    classes: tuple[str, ...]
    row_M: np.ndarray
    keys: Keys
    label_M: np.ndarray
    given_M: np.ndarray
    suggested_M: np.ndarray
    p_label_M: np.ndarray
    p_max_M: np.ndarray
    keep_M: np.ndarray
    verdict_M: np.ndarray
    files: Storage | None
    transition: Mapping[str, Any] | None = None

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def relabelled(self) -> int:
        return int((self.label_M != self.given_M).sum())

    def label_name(self, place: int) -> str:
        return self.classes[int(self.label_M[place])]

    def paths(self) -> list[Path]:
        """Absolute paths; InputError where the images are no files of this machine."""
        if self.files is None:
            raise _gone()
        if not isinstance(self.files, LocalStorage):
            raise InputError(
                "The images of this store are no files of this machine: they lie in archives or behind a URL.",
                so="There is nothing that could be listed or linked to.",
                do="Export what holds the images themselves: --to copies, huggingface, fiftyone or webdataset.",
            )
        return [Path(self.files.location) / key for key in self.keys]

    def contents(self) -> Iterator[tuple[int, FileContent]]:
        """(place in M, the image file as it is), in order; InputError where no image can be reached."""
        if self.files is None:
            raise _gone()
        for start in range(0, len(self.keys), READ_AT_ONCE):
            part = self.keys[start : start + READ_AT_ONCE]
            yield from zip(range(start, start + len(part)), self.files.read(part), strict=True)


def choose(
    store: Store,
    split: Split,
    config: ExportConfig,
    files: Storage | None,
    *,
    usual_take: str = "kept",
    progress: Progress = SILENT,
) -> Chosen:
    """usual_take: where config.take does not say. Raises StoreError for a selection that is missing or stale,
    UsageError for a filter that names nothing."""
    selection = _selection(split, config)
    label_N, ok_N = split.label_N().astype(np.int64), selection.suggested >= 0
    obeyed = obey(split, selection, store.classes, ignore_review=config.ignore_review)
    obeyed.note(selection.name, progress)
    keep_N, verdicts = obeyed.keep_N, obeyed.verdicts
    taken_N = {"kept": keep_N, "dropped": ok_N & ~keep_N, "all": ok_N}[config.take or usual_take]
    new_N = verdicts.labels(label_N)
    if config.relabel is not None:
        other_N = ok_N & (selection.suggested != label_N) & (selection.p_max >= np.float32(config.relabel))
        other_N &= verdicts.code_N == UNDECIDED  # where people decided, nothing is suggested any more
        new_N[other_N] = selection.suggested[other_N]
        taken_N = taken_N | other_N
    row_M = np.flatnonzero(taken_N & _filtered(store, selection, label_N, config))
    keys = split.keys()
    if config.match is not None:
        row_M = row_M[np.fromiter((config.match in key for key in keys[row_M]), bool, len(row_M))]
    return Chosen(
        split=split.name,
        selection=selection.name,
        classes=store.classes,
        row_M=row_M,
        keys=keys[row_M],
        label_M=new_N[row_M],
        given_M=label_N[row_M],
        suggested_M=selection.suggested[row_M].astype(np.int64),
        p_label_M=selection.p_label[row_M],
        p_max_M=selection.p_max[row_M],
        keep_M=keep_N[row_M],
        verdict_M=verdicts.code_N[row_M],
        files=files,
        transition=((selection.attributes.get("summary") or {}).get("expected") or {}).get("transition"),
    )


def _selection(split: Split, config: ExportConfig) -> StoredSelection:
    name = config.selection or next(reversed(split.selections.attributes()), None)
    if name is None:
        raise StoreError(f"Split {split.name!r} has no selection yet.", do="Make one with: cleanctl select")
    selection = split.selections.read(name)
    if selection.stale:
        raise StoreError(
            f"The selection {name!r} was made before images or labels of {split.store_path} changed.",
            do=f"Make it again with: cleanctl select --name {name}",
        )
    return selection


def _filtered(store: Store, selection: StoredSelection, label_N: np.ndarray, config: ExportConfig) -> np.ndarray:
    """(N,) bool: the filters by class, rule and probability."""
    passes_N = np.ones(len(label_N), bool)
    if config.classes:
        if unknown := [name for name in config.classes if name not in store.classes]:
            shown = ", ".join(store.classes[:8]) + (", …" if len(store.classes) > 8 else "")
            raise UsageError(
                f"--class {unknown[0]!r} is no class of the store{meant(unknown[0], store.classes)}",
                do=f"Give one of: {shown}.",
            )
        passes_N &= np.isin(label_N, [store.classes.index(name) for name in config.classes])
    rules = selection.rules
    for wanted in map(RuleFilter.parse, config.rules):
        if wanted.rule not in rules:
            raise UsageError(
                f"--rule {wanted.rule!r} is not part of the selection {selection.name!r}{meant(wanted.rule, rules)}",
                do=f"Give one of: {', '.join(rules)}.",
            )
        passes_N &= rules[wanted.rule].keep == wanted.kept
    if config.p_label_below is not None:
        passes_N &= selection.p_label < np.float32(config.p_label_below)
    return passes_N


def _gone() -> InputError:
    return InputError(
        "The images of this store are not where they were embedded from.",
        do="Bring them back, run cleanctl embed where they are now, or export a table: --to parquet, csv or cleanlab.",
    )
