"""`open_source`: from what the user named to a Dataset, before any image is opened.

In: an EmbedConfig. Out: a Dataset whose splits hold sorted keys (POSIX paths relative to the source) and int32 labels.
Nothing is written. Who says what a label is, in this order: a named layout (`--dataset`), a label table (`--labels`),
the class folders. Class names come from `--classes`, else from the names themselves, sorted.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from cleanctl.config import EmbedConfig
from cleanctl.datasets import webdataset
from cleanctl.datasets.folders import FolderLayout, class_folder, recognise, split_name, split_tops
from cleanctl.datasets.label_table import LabelTable, as_numbers, read_table
from cleanctl.datasets.layouts import open_named
from cleanctl.datasets.noise import add_noise
from cleanctl.datasets.webdataset import from_tars, list_tars
from cleanctl.errors import InputError, UsageError
from cleanctl.files.listing import Scan
from cleanctl.files.locate import GIVE, Located, locate, read_named_file
from cleanctl.files.tar_index import LabelFields
from cleanctl.paths import is_url
from cleanctl.progress import SILENT, Progress
from cleanctl.records import Dataset, SplitManifest, Storage


def open_source(config: EmbedConfig, *, cache: Path | None = None, progress: Progress = SILENT) -> Dataset:
    """The dataset a source holds, restricted to `--split`, with `--noise` applied to its training labels.

    cache: where the index of tars is kept. Raises InputError (no images, unknown class, labels that match nothing, …)
    or UsageError (no such split, layout or column).
    """
    classes = None if config.classes is None else read_classes(str(config.classes))
    found = locate(str(config.source))
    if config.dataset is not None and config.dataset != webdataset.LAYOUT:
        dataset = open_named(config.dataset, _folder_of(found, config.dataset), classes)
    else:
        dataset = _recognise(found, config, classes, cache, progress)
    dataset = _restrict(dataset, config.splits)
    if config.noise is not None:
        dataset = add_noise(dataset, kind_rate=str(config.noise), seed=config.seed)
    return dataset


def _recognise(
    found: Located, config: EmbedConfig, classes: tuple[str, ...] | None, cache: Path | None, progress: Progress
) -> Dataset:
    """Images in folders, or tars, whichever lies there; labels from a table or from names."""
    scan = found.scan
    if found.file is not None and not scan.tars and not scan.packed:
        raise InputError(f"The source {found.location!r} is a file and no tar.", do=GIVE)
    table = None
    if config.labels is not None:
        table = read_table(
            config.labels, root=found.location, label_column=config.label_column, truth_column=config.truth_column
        )
    by_force = config.dataset == webdataset.LAYOUT
    if not by_force and not _takes_tars(scan, table):
        files = found.storage
        dataset = _from_folders(files, scan, classes) if table is None else _from_table(files, scan, table, classes)
        return replace(dataset, notes=(*dataset.notes, *_tars_note(scan)))
    if scan.packed or not scan.tars:
        raise packed_tar(scan.packed[0]) if scan.packed else _no_tars(found.location)
    fields = LabelFields(label=config.label_column, truth=config.truth_column, read=table is None)
    listing = list_tars(found.location, found.storage, scan.tars, fields, cache=cache, progress=progress)
    if table is None:
        dataset = from_tars(listing, fields, classes)
    else:
        inside = Scan(keys=listing.files.keys)
        dataset = replace(_from_table(listing.files, inside, table, classes), layout=webdataset.LAYOUT)
        dataset = replace(dataset, notes=(*listing.notes, *dataset.notes))
    notes = [*scan.notes(), *dataset.notes, f"{len(scan.tars):,} tars with {len(listing.files.keys):,} images."]
    if scan.keys:
        notes.append(f"{len(scan.keys):,} images beside the tars are left out, e.g. {scan.keys[0]!r}.")
    return replace(dataset, left_out=dataset.left_out + len(scan.keys), notes=tuple(notes))


def _takes_tars(scan: Scan, table: LabelTable | None) -> bool:
    """Where images lie beside tars: images if the table names one of them, or if they lie in class folders."""
    if not scan.keys or not scan.tars:
        return bool(scan.tars or scan.packed) and not scan.keys
    if table is not None:
        return set(scan.keys).isdisjoint(table.keys)
    return recognise(scan.keys).layout == "flat"


def _tars_note(scan: Scan) -> list[str]:
    count = len(scan.tars) + len(scan.packed)
    if not count:
        return []
    return [f"{count:,} tars beside the images are left out, e.g. {(scan.tars + scan.packed)[0]!r}; "
            f"--dataset {webdataset.LAYOUT} takes them instead of the images."]  # fmt: skip


def _no_tars(location: str) -> InputError:
    return InputError(f"--dataset {webdataset.LAYOUT} was asked for, and {location!r} holds no .tar file.", do=GIVE)


def packed_tar(name: str) -> InputError:
    return InputError(
        f"{name!r} is a compressed tar.",
        so="Its images cannot be read in place; each look at one would mean unpacking all before it.",
        do="Unpack it to a plain .tar (gunzip, unxz, zstd -d); JPEG files hardly shrink in such a tar anyway.",
    )


def _folder_of(found: Located, name: str) -> Path:
    if found.file is not None or is_url(found.location):
        raise UsageError(
            f"--dataset {name} was asked for, and {found.location!r} is no folder of this machine.",
            do="Give the dataset's folder as its authors ship it.",
        )
    return Path(found.location)


def read_classes(file: str) -> tuple[str, ...]:
    """Class names of a text file, one a line, in label order. Empty lines at the end are no classes."""
    try:
        lines = read_named_file(file, "--classes").decode("utf-8-sig").rstrip().splitlines()
    except UnicodeDecodeError as exc:
        raise InputError(f"The class file {file!r} cannot be read: {exc}.") from exc
    names = tuple(line.strip() for line in lines)
    if not names or "" in names:
        where = f"line {names.index('') + 1} is empty" if names else "it is empty"
        raise InputError(f"The class file {file!r} is no list of names: {where}.", do="Write one name a line.")
    repeated = next((name for name in names if names.count(name) > 1), None) if len(set(names)) < len(names) else None
    if repeated is not None:
        raise InputError(f"The class file {file!r} names {repeated!r} twice.", do="Give each class its own name.")
    return names


# --- class folders ---------------------------------------------------------------------------------------------------


def _from_folders(files: Storage, scan: Scan, classes: tuple[str, ...] | None) -> Dataset:
    if not scan.keys:
        raise _no_images(files.location)
    found = recognise(scan.keys)
    _refuse_flat(files.location, found)
    notes = list(scan.notes())
    left_out = len(found.others)
    if classes is None:
        teaching = found.splits.get("train")
        pool = [teaching] if teaching else list(found.splits.values())
        classes = tuple(sorted({folder for split in pool for folder in split.folders if folder}))
    else:
        _refuse_unknown_folders(found, classes)
    splits = []
    for name in sorted(found.splits):
        manifest, unmatched = _folder_manifest(name, found, classes)
        left_out += len(unmatched)
        if unmatched:
            notes.append(_unmatched_note(name, unmatched))
        if manifest is not None:
            splits.append(manifest)
    return Dataset(
        files=files,
        layout=found.layout,
        classes=classes,
        splits=tuple(splits),
        left_out=left_out,
        notes=tuple(notes),
    )


def _folder_manifest(
    split: str, found: FolderLayout, classes: Sequence[str], *, without: Iterable[str] = ()
) -> tuple[SplitManifest | None, list[str]]:
    """The files whose class folder is a class, and the keys of the others; keys in `without` are passed over."""
    number = {name: index for index, name in enumerate(classes)}
    skip = set(without)
    keys, labels, unmatched = [], [], []
    for key, folder in zip(*found.splits[split]):
        if key in skip:
            continue
        label = number.get(folder)
        if label is None:
            unmatched.append(key)
        else:
            keys.append(key)
            labels.append(label)
    if not keys:
        return None, unmatched
    return SplitManifest(split=split, keys=keys, label_N=np.array(labels, dtype=np.int32)), unmatched


def _unmatched_note(split: str, unmatched: list[str]) -> str:
    example = f"e.g. {unmatched[0]!r}"
    return f"{len(unmatched):,} images of {split!r} are left out: their folder is none of the classes, {example}."


def _no_images(location: str) -> InputError:
    return InputError(
        f"No images were found in {location!r}.",
        so="There is nothing to embed.",
        do="Give a folder with image files in class folders, or with tars, or name the labels with --labels.",
    )


def _refuse_flat(location: str, found: FolderLayout) -> None:
    if found.layout == "split folders":
        return
    folders = {folder for folder in found.splits["train"].folders if folder}
    if found.layout == "flat":
        example = found.splits["train"].keys[0]
        fact = f"The images of {location!r} lie in no class folders, e.g. {example!r}."
    elif folders and all(split_name(folder) in ("train", "test", "val") for folder in folders):
        listed = ", ".join(f"{folder}/" for folder in sorted(folders))
        fact = f"The split folders of {location!r} ({listed}) hold images directly, in no class folders."
    else:
        return
    raise InputError(
        fact,
        so="Nothing says what their labels are.",
        do="Put them in one folder a class, or give --labels FILE with the columns path and label.",
    )


def _refuse_unknown_folders(found: FolderLayout, classes: tuple[str, ...]) -> None:
    known = set(classes)
    for split in found.splits.values():
        for key, folder in zip(*split):
            if folder not in known:
                raise InputError(
                    f"The folder {folder!r} (e.g. {key!r}) is none of the {len(classes)} names in --classes.",
                    so="Its images would have no label.",
                    do="Name classes exactly as their folders, or give --labels FILE.",
                )


# --- label tables ----------------------------------------------------------------------------------------------------


def _from_table(files: Storage, scan: Scan, table: LabelTable, classes: tuple[str, ...] | None) -> Dataset:
    notes = list(scan.notes())
    if not len(table):
        raise InputError(f"The label file {table.file!r} has no rows.", do="Give a table with one row an image.")
    notes += _check_paths(files, scan, table)
    if classes is None:
        classes, note = _table_classes(table)
        notes.append(note)
    label = as_numbers(table.label, classes=classes, column=table.label_column, where=table.where)
    truth = None
    if table.truth is not None:
        truth = as_numbers(table.truth, classes=classes, column=str(table.truth_column), where=table.where)
    splits = _table_splits(table, label, truth)
    more, more_notes = _other_splits(scan, table, classes, taken={manifest.split for manifest in splits})
    embedded = sum(len(manifest) for manifest in more) + len(set(scan.keys) & set(table.keys))
    return Dataset(
        files=files,
        layout="label table",
        classes=classes,
        splits=tuple(sorted([*splits, *more], key=lambda manifest: manifest.split)),
        left_out=len(scan.keys) - embedded,
        notes=(*notes, *more_notes),
    )


def _check_paths(files: Storage, scan: Scan, table: LabelTable) -> list[str]:
    """A table none of whose paths exists is refused; single missing files become failed rows later, and are noted."""
    scanned = set(scan.keys)
    unlisted = [key for key in table.keys if key not in scanned]
    size_N = files.stat(unlisted).size_N
    missing = [key for key, size in zip(unlisted, size_N.tolist()) if size < 0]
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
        names = tuple(sorted({str(value) for values in both for value in values}))
        return names, f"{len(names)} classes from the names in {table.label_column!r}, sorted."
    tops = split_tops(table.keys)
    folders = np.array([class_folder(key, tops) for key in table.keys], dtype=object)
    names = tuple(sorted(set(folders)))
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
    values = table.label if table.truth is None else table.truth
    if values.min() < 0 or values.max() >= len(names) or len(names) < 2:
        return  # as_numbers says what is wrong with these
    number = {name: index for index, name in enumerate(names)}
    folder_N = np.fromiter((number[folder] for folder in folders), dtype=np.int64, count=len(folders))
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
    names = np.array(table.split if table.split is not None else ["train"] * len(table), dtype=object)
    keys = np.array(table.keys, dtype=object)
    order = np.array(sorted(range(len(keys)), key=table.keys.__getitem__), dtype=np.int64)
    splits = []
    for name in sorted(set(names)):
        rows = order[names[order] == name]
        splits.append(
            SplitManifest(
                split=str(name),
                keys=keys[rows].tolist(),
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
        manifest, unmatched = _folder_manifest(name, found, classes, without=table.keys)
        if unmatched:
            notes.append(_unmatched_note(name, unmatched))
        if manifest is not None:
            manifests.append(manifest)
            notes.append(f"Split {name!r} is not in the label table: its {len(manifest):,} labels are folder names.")
    return manifests, notes


# --- --split ---------------------------------------------------------------------------------------------------------


def _restrict(dataset: Dataset, wanted: tuple[str, ...]) -> Dataset:
    """Only the splits asked for; the images of the others count as left out."""
    if not wanted:
        return dataset
    by_name = {manifest.split: manifest for manifest in dataset.splits}
    chosen = {}
    for name in wanted:
        manifest = by_name.get(name) or by_name.get(split_name(name))
        if manifest is None:
            raise UsageError(
                f"--split {name!r} is not in the source; it has: {', '.join(by_name)}.",
                do="Name one of these, or leave --split out to take all.",
            )
        chosen[manifest.split] = manifest
    dropped = sum(len(manifest) for name, manifest in by_name.items() if name not in chosen)
    return replace(
        dataset,
        splits=tuple(manifest for manifest in dataset.splits if manifest.split in chosen),
        left_out=dataset.left_out + dropped,
    )
