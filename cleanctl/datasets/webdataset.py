"""WebDataset tars → a Dataset: which split a tar belongs to, and what says the label of each sample.

In: a tree and the tars in it. Out: a Dataset with keys `shard/name`, in sorted order whatever the tars' own. On disk:
the index of the tars, if a path is given for it (`tar_cache.py`), so that a later run or verb need not walk them again.

Labels come from the label table, else from the `.json` members' field, else from `.cls`, else from `.txt`: the first
of these that says anything. Samples without one are left out and counted.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cleanctl.datasets.adapter import DatasetAdapter, DatasetRequest
from cleanctl.datasets.columns import as_numbers, numbers_or_names
from cleanctl.datasets.folders import SPLIT_NAMES, recognise, split_name
from cleanctl.datasets.table_dataset import from_table
from cleanctl.errors import InputError, UsageError
from cleanctl.files.keys import Keys
from cleanctl.files.listing import Scan
from cleanctl.files.locate import GIVE, Located
from cleanctl.files.storage import Tar, TreeStorage
from cleanctl.files.tar_cache import read_indices, write_indices
from cleanctl.files.tar_index import Coded, LabelFields, TarIndex, index_tar, shard_of
from cleanctl.files.tar_storage import TarStorage
from cleanctl.progress import SILENT, Progress
from cleanctl.records import Dataset, SplitManifest

LAYOUT = "webdataset"
SHOWN_DAMAGES, SHOWN_NAMES = 5, 20
FEW_TEXTS = 20  # so many different texts may be classes even if no two images share one


class WebDataset(DatasetAdapter):
    general = True
    takes = ("--labels", "--label-column", "--truth-column", "--classes")

    def recognise(self, request: DatasetRequest) -> bool:
        """Where images lie beside tars: images if the table names one of them, or if they lie in class folders."""
        scan = request.scan
        if not scan.keys or not scan.tars:
            return bool(scan.tars or scan.packed) and not scan.keys
        if request.table is not None:
            return bool((scan.keys.rows_of(request.table.keys) < 0).all())
        return recognise(scan.keys).layout == "flat"

    def open(self, request: DatasetRequest) -> Dataset:
        scan, located, table = request.scan, request.located, request.table
        if scan.packed or not scan.tars:
            raise _packed_tar(scan.packed[0]) if scan.packed else _no_tars(located.location)
        fields = LabelFields(label=request.label_column, truth=request.truth_column, read=table is None)
        listing = list_tars(
            located.location, located.storage, scan.tars, fields, cache=request.cache, progress=request.progress
        )
        if table is None:
            dataset = from_tars(listing, fields, request.classes)
        else:
            dataset = from_table(listing.files, Scan(keys=listing.files.keys), table, request.classes)
            dataset = replace(dataset, layout=LAYOUT, notes=(*listing.notes, *dataset.notes))
        notes = [*scan.notes(), *dataset.notes, f"{len(scan.tars):,} tars with {len(listing.files.keys):,} images."]
        if scan.keys:
            notes.append(f"{len(scan.keys):,} images beside the tars are left out, e.g. {scan.keys[0]!r}.")
        return replace(dataset, left_out=dataset.left_out + len(scan.keys), notes=tuple(notes))

    def reopen(self, located: Located, *, cache: Path | None) -> TarStorage:
        known = {} if cache is None else read_indices(cache, None)
        indices = []
        for tar in map(located.storage.tar, located.scan.tars):
            index = known.get(tar.name)
            if index is None or index.tar != tar:
                index = index_tar(located.storage, tar, LabelFields(read=False))
            indices.append(index)
        return TarStorage.of(located.location, located.storage, indices)[0]


def _packed_tar(name: str) -> InputError:
    return InputError(
        f"{name!r} is a compressed tar.",
        so="Its images cannot be read in place: reading one means unpacking all before it.",
        do="Unpack it to a plain .tar (gunzip, unxz, zstd -d); JPEG files hardly shrink in such a tar anyway.",
    )


def _no_tars(location: str) -> InputError:
    return InputError(f"--dataset {LAYOUT} was asked for, and {location!r} holds no .tar file.", do=GIVE)


# --- listing ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class TarListing:
    """indices: without places and names, which are those of `files`. order_N: of each row of `files`, its place among
    the samples of `indices`, tar by tar."""

    files: TarStorage
    indices: list[TarIndex]
    order_N: np.ndarray | slice
    notes: tuple[str, ...]


def list_tars(
    location: str,
    storage: TreeStorage,
    names: Sequence[str],
    fields: LabelFields,
    *,
    cache: Path | None = None,
    progress: Progress = SILENT,
) -> TarListing:
    """The samples of all tars. Raises InputError for tars that cannot be read, and keys that are there twice."""
    _refuse_same_shard(names)
    try:
        tars = [storage.tar(name) for name in names]
        known = {} if cache is None else read_indices(cache, fields)
        indices = _index_all(storage, tars, known, fields, progress)
    except OSError as exc:
        raise InputError(f"The tars of {location!r} cannot be read: {exc.strerror or exc}.") from exc
    notes = _damage_notes(indices)
    others = sum(index.others for index in indices)
    if others:
        notes.append(f"{others:,} members of the tars are no images or labels of one, and are left out.")
    if cache is not None and any(known.get(index.tar.name) is not index for index in indices):
        notes += write_indices(cache, indices, fields)
    del known
    files, order_N = TarStorage.of(location, storage, indices)
    _refuse_same_key(files)
    return TarListing(files=files, indices=[one.labels_alone() for one in indices], order_N=order_N, notes=tuple(notes))


def _damage_notes(indices: list[TarIndex]) -> list[str]:
    damaged = [index for index in indices if index.damage]
    notes = [
        f"The tar {index.tar.name!r} is damaged: {index.damage}. The {len(index.names):,} images before that are kept; "
        "what follows is lost."
        for index in damaged[:SHOWN_DAMAGES]
    ]
    if len(damaged) > SHOWN_DAMAGES:
        names = ", ".join(index.tar.name for index in damaged[SHOWN_DAMAGES:][:SHOWN_NAMES])
        more = ", …" if len(damaged) > SHOWN_DAMAGES + SHOWN_NAMES else ""
        notes.append(f"{len(damaged) - SHOWN_DAMAGES:,} more tars are damaged: {names}{more}.")
    return notes


def _index_all(
    storage: TreeStorage, tars: list[Tar], known: dict[str, TarIndex], fields: LabelFields, progress: Progress
) -> list[TarIndex]:
    def one(tar: Tar) -> TarIndex:
        index = known.get(tar.name)
        return index if index is not None and index.tar == tar else index_tar(storage, tar, fields)

    indices = []
    with (
        progress.track("listing tars", total=len(tars), unit="tars") as task,
        ThreadPoolExecutor(storage.threads) as pool,
    ):
        for index in pool.map(one, tars):
            indices.append(index)
            task.advance()
    return indices


def _refuse_same_shard(names: Sequence[str]) -> None:
    first: dict[str, str] = {}
    for name in names:
        other = first.setdefault(shard_of(name), name)
        if other != name:
            raise InputError(
                f"The tars {other!r} and {name!r} give their samples the same keys, {shard_of(name)}/….",
                so="A row's identity is its key.",
                do="Rename one of them.",
            )


def _refuse_same_key(files: TarStorage) -> None:
    row = files.keys.first_repeated()
    if row is not None:
        names = " and ".join(repr(files.tars[files.tar_N[at]].name) for at in (row - 1, row))
        raise InputError(
            f"The key {files.keys[row]!r} is there twice, in {names}.",
            so="A row's identity is its key.",
            do="Rename one of the tars.",
        )


# --- splits ----------------------------------------------------------------------------------------------------------


def splits_of(names: Sequence[str]) -> dict[str, str | None]:
    """tar → its split, None for a tar outside every split folder.

    `train/000.tar` by its folder; `x-train-000.tar` by the split word in its name, if every tar has exactly one; else
    all are `train`.
    """
    by_folder = {name: _split_folder(name) for name in names}
    if any(by_folder.values()):
        return by_folder
    words = {name: _split_words(name) for name in names}
    if all(len(found) == 1 for found in words.values()):
        return {name: found.pop() for name, found in words.items()}
    return dict.fromkeys(names, "train")


def _split_folder(name: str) -> str | None:
    folder, slash, _ = name.partition("/")
    return split_name(folder) if slash and folder.lower() in SPLIT_NAMES else None


def _split_words(name: str) -> set[str]:
    return {SPLIT_NAMES[word] for word in re.split(r"[^a-z]+", shard_of(name).lower()) if word in SPLIT_NAMES}


# --- labels ----------------------------------------------------------------------------------------------------------


def from_tars(listing: TarListing, fields: LabelFields, classes: tuple[str, ...] | None) -> Dataset:
    """Raises InputError or UsageError where nothing says what the labels are."""
    files, indices = listing.files, listing.indices
    if not files.keys:
        raise InputError(
            f"The {len(indices)} tars of {files.location!r} hold no images.",
            so="There is nothing to embed.",
            do="Give tars whose samples have a member such as NAME.jpg, NAME.png or NAME.webp.",
        )
    source = _label_source(indices, fields)
    says = _SAYS[source].format(fields.label)
    notes = list(listing.notes)
    rows = _Rows.of(listing, source)
    if source == "txt" and classes is None:
        _refuse_captions(rows, indices)
    unlabelled = int(np.count_nonzero(rows.label.code_N < 0))
    if unlabelled:
        notes.append(f"{unlabelled:,} images of the tars are left out: they have no label in {says}.")
    labels, classes, note = _numbers(rows.label, classes, rows, source, fields)
    notes.append(f"Labels from {says}{note}")
    truth = None
    if fields.truth is not None:
        truth = _truth_numbers(rows, classes, fields)
    splits = _manifests(rows, labels, truth)
    taken = sum(len(manifest) for manifest in splits)
    if not splits:
        raise InputError(f"No image of {files.location!r} lies in a split folder and has a label.")
    return Dataset(
        files=files,
        layout=LAYOUT,
        classes=classes,
        splits=tuple(splits),
        left_out=len(files.keys) - taken,
        notes=tuple(notes),
    )


_SAYS = {"json_label": "the field {!r} of the .json members", "cls": "the .cls members", "txt": "the .txt members"}


@dataclass(frozen=True, kw_only=True)
class _Rows:
    """All N samples with an image, in the order of sorted keys. splits: names, sorted. split_N: int32, into `splits`,
    -1 outside all of them."""

    keys: Keys
    splits: tuple[str, ...]
    split_N: np.ndarray
    label: Coded
    truth: Coded

    @classmethod
    def of(cls, listing: TarListing, source: str) -> _Rows:
        split_of = splits_of([tar.name for tar in listing.files.tars])
        splits = sorted({split for split in split_of.values() if split is not None})
        number = {None: -1} | {split: at for at, split in enumerate(splits)}
        of_tar_T = np.array([number[split_of[tar.name]] for tar in listing.files.tars], dtype=np.int32)

        def column(name: str) -> Coded:
            coded = Coded.of([index.labels[name] for index in listing.indices])
            return replace(coded, code_N=coded.code_N[listing.order_N])

        return cls(
            keys=listing.files.keys,
            splits=tuple(splits),
            split_N=of_tar_T[listing.files.tar_N],
            label=column(source),
            truth=column("json_truth"),
        )

    def where(self, row: int) -> str:
        return f"The sample {self.keys[row]!r}"


def _label_source(indices: list[TarIndex], fields: LabelFields) -> str:
    """The column of a TarIndex that says the labels: a field that was asked for is in the `.json` or nowhere."""
    asked = fields.label != LabelFields.label
    for source in ("json_label",) if asked else ("json_label", "cls", "txt"):
        if any(index.labels[source].null_count < len(index.labels[source]) for index in indices):
            return source
    known = _json_fields(indices)
    lacking = f"their .json members have no field {fields.label!r} (they have: {known})" if known else "no .json"
    if asked and known:
        raise UsageError(f"In the tars, {lacking}.", do="Name the field with --label-column.")
    raise InputError(
        f"Nothing in the tars says what the labels are: {lacking}"
        + ("." if asked else ", and no .cls or .txt members."),
        do="Name a field of the .json members with --label-column, or give --labels FILE with the columns path (the "
        f"key, e.g. {_example(indices)!r}) and label.",
    )


def _json_fields(indices: list[TarIndex]) -> str:
    return ", ".join(next((index.json_fields for index in indices if index.json_fields), ()))


def _example(indices: list[TarIndex]) -> str:
    return next((f"{index.shard}/{index.names[0]}" for index in indices if index.names), "00000/000000001")


def _refuse_captions(rows: _Rows, indices: list[TarIndex]) -> None:
    """Texts that hardly ever repeat are captions: as classes they would make as many prompts as there are images."""
    count = len(rows.label.texts)
    if count <= FEW_TEXTS or 2 * count <= len(rows.label):
        return
    known, example = _json_fields(indices), min(str(rows.label.value(code)) for code in range(count))
    raise InputError(
        f"The .txt members hold {count:,} different texts for {len(rows.label):,} images, e.g. {example!r}.",
        so="They are captions and not the names of classes.",
        do="Give --labels FILE with the columns path (the key, e.g. "
        f"{_example(indices)!r}) and label"
        + (f", or --label-column with a field of the .json members ({known})." if known else ".")
        + " If they are classes, name them with --classes FILE.",
    )


def _numbers(
    values: Coded, classes: tuple[str, ...] | None, rows: _Rows, source: str, fields: LabelFields
) -> tuple[np.ndarray, tuple[str, ...], str]:
    """int32 labels, -1 where there is none; the classes; how they were named."""
    taken = numbers_or_names([str(values.value(code)) for code in range(len(values.texts))])
    note = "."
    if classes is None:
        if taken.dtype != object:
            raise InputError(
                f"The labels in {_SAYS[source].format(fields.label)} are numbers, and nothing names the classes.",
                so="Prompts need the classes' names.",
                do="Give --classes FILE with one name a line, in label order.",
            )
        classes = tuple(sorted(set(taken)))
        note = f"; {len(classes)} classes from their names, sorted."
    column, given = fields.label if source == "json_label" else f".{source}", values.code_N >= 0
    try:
        label_of = as_numbers(taken, classes=classes, column=column, where=str)
    except InputError:  # said again of the rows: which is the first, how many there are
        row_N = np.flatnonzero(given)
        of_row = taken[values.code_N[given]]
        as_numbers(of_row, classes=classes, column=column, where=lambda row: rows.where(int(row_N[row])))
        raise
    label_N = np.full(len(values), -1, dtype=np.int32)
    label_N[given] = label_of[values.code_N[given]]
    return label_N, classes, note


def _truth_numbers(rows: _Rows, classes: tuple[str, ...], fields: LabelFields) -> np.ndarray:
    missing_N = np.flatnonzero((rows.truth.code_N < 0) & (rows.label.code_N >= 0))
    if len(missing_N):
        raise UsageError(
            f"{rows.where(int(missing_N[0]))} has no field {fields.truth!r} in its .json member.",
            do="Name a field that every labelled sample has with --truth-column, or leave it out.",
        )
    return _numbers(rows.truth, classes, rows, "json_label", fields)[0]


def _manifests(rows: _Rows, label_N: np.ndarray, truth_N: np.ndarray | None) -> list[SplitManifest]:
    splits = []
    for number, name in enumerate(rows.splits):
        chosen = np.flatnonzero((rows.split_N == number) & (label_N >= 0))
        if len(chosen):
            splits.append(
                SplitManifest(
                    split=name,
                    keys=rows.keys[chosen],
                    label_N=label_N[chosen],
                    truth_N=None if truth_N is None else truth_N[chosen],
                )
            )
    return splits
