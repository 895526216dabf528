"""A label table and the images that it names: the datasets of `--labels`.

In: a LabelTable, the storage of the images, and the keys in it. Out: a Dataset whose rows are the table's, with the
split folders that the table does not name beside them. A table of numbers takes its class names from `--classes`, else
from the class folders in its paths where they agree.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from cleanctl.datasets.adapter import DatasetAdapter, DatasetRequest, refuse_file
from cleanctl.datasets.columns import UNKNOWN, as_numbers
from cleanctl.datasets.folder_dataset import folder_manifest, tars_note, unmatched_note
from cleanctl.datasets.folders import class_folder, recognise, split_tops
from cleanctl.datasets.label_table import LabelTable
from cleanctl.errors import InputError, UsageError
from cleanctl.files.listing import Scan
from cleanctl.records import Dataset, SplitManifest, Storage


class TableDataset(DatasetAdapter):
    general = True
    takes = ("--labels", "--label-column", "--truth-column", "--classes")

    def recognise(self, request: DatasetRequest) -> bool:
        return request.table is not None

    def open(self, request: DatasetRequest) -> Dataset:
        if request.table is None:
            raise UsageError("--dataset label-table was given without --labels.", do="Give --labels FILE.")
        refuse_file(request.located)
        dataset = from_table(request.located.storage, request.scan, request.table, request.classes)
        return replace(dataset, notes=(*dataset.notes, *tars_note(request.scan)))


def from_table(files: Storage, scan: Scan, table: LabelTable, classes: tuple[str, ...] | None) -> Dataset:
    notes = list(scan.notes())
    if not len(table):
        raise InputError(f"The label file {table.file!r} has no rows.", do="Give a table with one row an image.")
    row_N = scan.keys.rows_of(table.keys)
    notes += _check_paths(files, scan, table, row_N)
    if classes is None:
        classes, note = _table_classes(table)
        notes.append(note)
    label = as_numbers(table.label, classes=classes, column=table.label_column, where=table.where)
    truth = None
    if table.truth is not None:
        column = str(table.truth_column)
        truth = as_numbers(table.truth, classes=classes, column=column, where=table.where, unknown=True)
    splits = _table_splits(table, label, truth)
    more, more_notes = _other_splits(scan, table, classes, taken={manifest.split for manifest in splits})
    embedded = sum(len(manifest) for manifest in more) + int(np.count_nonzero(row_N >= 0))
    return Dataset(
        files=files,
        layout="label table",
        classes=classes,
        splits=tuple(sorted([*splits, *more], key=lambda manifest: manifest.split)),
        left_out=len(scan.keys) - embedded,
        notes=(*notes, *more_notes),
    )


def _check_paths(files: Storage, scan: Scan, table: LabelTable, row_N: np.ndarray) -> list[str]:
    """A table none of whose paths exists is refused; single missing files become failed rows later, and are noted.
    row_N: among the listed files, -1 where it is none."""
    unlisted = table.keys[row_N < 0]
    missing = unlisted[files.stat(unlisted).size_N < 0]
    if len(missing) < len(table):
        if not missing:
            return []
        return [
            f"{len(missing):,} of {len(table):,} rows of {table.file!r} name files that do not exist, "
            f"e.g. {missing[0]!r}; they are kept as failed rows."
        ]
    found = f"the source holds e.g. {scan.keys[0]!r}" if scan.keys else "the source holds no images"
    raise InputError(
        f"0 of {len(table):,} paths of {table.file!r} match a file below {files.location!r}: "
        f"the table says e.g. {missing[0]!r}, {found}.",
        so="No label can be joined to an image.",
        do="Write the column 'path' relative to the source, or give the folder that the paths start from.",
    )


def _table_classes(table: LabelTable) -> tuple[tuple[str, ...], str]:
    if table.label.dtype == object:
        both = [table.label] if table.truth is None else [table.label, table.truth]
        names = tuple(sorted(set().union(*both) - {""}))
        return names, f"{len(names)} classes from the names in {table.label_column!r}, sorted."
    tops = split_tops(table.keys)
    known: dict[str, str] = {}  # each name once in memory
    folders = np.empty(len(table), object)
    for row, key in enumerate(table.keys):
        folder = class_folder(key, tops)
        folders[row] = known.setdefault(folder, folder)
    names = tuple(sorted(known))
    if "" in names:
        raise InputError(
            f"Column {table.label_column!r} of {table.file!r} holds numbers, and nothing names the classes.",
            so="Prompts need the classes' names.",
            do="Give --classes FILE with one name a line, in label order.",
        )
    _refuse_other_order(table, folders, names)
    return names, f"{len(names)} classes from the folders in the paths, sorted; label 0 is {names[0]!r}."


def _refuse_other_order(table: LabelTable, folders: np.ndarray, names: tuple[str, ...]) -> None:
    """Sorted folders are a guess at what the numbers mean. Even very noisy labels agree with it in most folders."""
    values = table.label if table.truth is None or table.truth.dtype == object else table.truth
    if values.min() < UNKNOWN or values.max() >= len(names) or len(names) < 2:
        return  # as_numbers says what is wrong with these
    number = {name: index for index, name in enumerate(names)}
    folder_N = np.fromiter((number[folder] for folder in folders), dtype=np.int64, count=len(folders))
    folder_N, values = folder_N[values >= 0], values[values >= 0]
    count_CC = np.zeros((len(names), len(names)), dtype=np.int64)
    np.add.at(count_CC, (folder_N, values), 1)
    agree = int((count_CC.argmax(axis=1) == np.arange(len(names))).sum())
    if 2 * agree < len(names):
        odd = int(np.flatnonzero(count_CC.argmax(axis=1) != np.arange(len(names)))[0])
        raise InputError(
            f"The numbers in {table.file!r} do not follow the sorted class folders: most images in {names[odd]!r} "
            f"(folder {odd}) have label {int(count_CC[odd].argmax())}; {agree} of {len(names)} folders agree.",
            so="The class names would be wrong.",
            do="Give --classes FILE with one name a line, in label order.",
        )


def _table_splits(table: LabelTable, label: np.ndarray, truth: np.ndarray | None) -> list[SplitManifest]:
    order_N = table.order_N
    split_N = None if table.split is None else table.split[order_N]
    splits = []
    for name in ["train"] if split_N is None else sorted(set(split_N.tolist())):
        rows = order_N if split_N is None else order_N[split_N == name]
        splits.append(
            SplitManifest(
                split=name,
                keys=table.keys[rows],
                label_N=label[rows],
                truth_N=None if truth is None else truth[rows],
            )
        )
    return splits


def _other_splits(
    scan: Scan, table: LabelTable, classes: tuple[str, ...], taken: set[str]
) -> tuple[list[SplitManifest], list[str]]:
    """Split folders that the table says nothing of (a clean `test/`), labelled by the names of their class folders."""
    if table.split is not None:
        return [], []
    found = recognise(scan.keys)
    manifests, notes = [], []
    for name in sorted(found.splits):
        if found.layout != "split folders" or name in taken:
            continue
        manifest, unmatched = folder_manifest(name, found, classes, without=table.keys)
        if unmatched:
            notes.append(unmatched_note(name, unmatched))
        if manifest is not None:
            manifests.append(manifest)
            notes.append(f"Split {name!r} is not in the label table: its {len(manifest):,} labels are folder names.")
    return manifests, notes
