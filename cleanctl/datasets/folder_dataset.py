"""Class folders: the names of folders say the split and the label of each image. The last resort of recognition.

In: the sorted keys of a source. Out: a Dataset whose classes are those of `--classes`, else the folders' names, sorted.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cleanctl.datasets.adapter import DatasetAdapter, DatasetRequest, refuse_file
from cleanctl.datasets.folders import FolderLayout, recognise, split_name
from cleanctl.errors import InputError
from cleanctl.files.keys import Keys
from cleanctl.files.listing import Scan
from cleanctl.records import Dataset, SplitManifest, Storage


class FolderDataset(DatasetAdapter):
    general = True

    def recognise(self, request: DatasetRequest) -> bool:
        return True

    def open(self, request: DatasetRequest) -> Dataset:
        refuse_file(request.located)
        return _from_folders(request.located.storage, request.scan, request.classes)


def tars_note(scan: Scan) -> tuple[str, ...]:
    """What is said where images were taken and tars lie beside them."""
    tars = scan.tars + scan.packed
    if not tars:
        return ()
    return (
        f"{len(tars):,} tars beside the images are left out, e.g. {tars[0]!r}; "
        "--dataset webdataset takes them instead of the images.",
    )


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
        manifest, unmatched = folder_manifest(name, found, classes)
        left_out += len(unmatched)
        if unmatched:
            notes.append(unmatched_note(name, unmatched))
        if manifest is not None:
            splits.append(manifest)
    return Dataset(
        files=files,
        layout=found.layout,
        classes=classes,
        splits=tuple(splits),
        left_out=left_out,
        notes=(*notes, *tars_note(scan)),
    )


def folder_manifest(
    split: str, found: FolderLayout, classes: Sequence[str], *, without: Sequence[str] = ()
) -> tuple[SplitManifest | None, Keys]:
    """The files whose class folder is a class, and the keys of the others; keys in `without` are passed over."""
    number = {name: index for index, name in enumerate(classes)}
    keys, folders = found.splits[split]
    label_N = np.fromiter((number.get(folder, -1) for folder in folders), np.int32, len(folders))
    wanted_N = np.ones(len(keys), bool)
    skipped_M = keys.rows_of(without)
    wanted_N[skipped_M[skipped_M >= 0]] = False
    unmatched, taken_N = keys[wanted_N & (label_N < 0)], wanted_N & (label_N >= 0)
    if not taken_N.any():
        return None, unmatched
    return SplitManifest(split=split, keys=keys[taken_N], label_N=label_N[taken_N]), unmatched


def unmatched_note(split: str, unmatched: Keys) -> str:
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
