"""`open_source`: from what the user named to a Dataset, before any image is opened; `open_files`: its files again, for
verbs that come after embed.

The adapters of `registry.DATASETS` know the kinds of datasets. Nothing is written but the index of tars, and the label
set of `--noise-file` where it is not there yet.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from cleanctl.config import EmbedConfig
from cleanctl.datasets.adapter import DatasetAdapter, DatasetRequest
from cleanctl.datasets.columns import refuse_repeated
from cleanctl.datasets.folders import split_name
from cleanctl.datasets.noise import add_noise
from cleanctl.errors import InputError, MissingPackageError, UsageError
from cleanctl.files.keys import Keys
from cleanctl.files.locate import locate
from cleanctl.meant import meant
from cleanctl.progress import SILENT, Progress
from cleanctl.records import Dataset, Storage
from cleanctl.registry import DATASETS

_OF_FOLDERS = ("class folders", "split folders", "label table")  # layouts whose rows are the source's files


def open_source(config: EmbedConfig, *, cache: Path | None = None, progress: Progress = SILENT) -> Dataset:
    """The dataset a source holds, restricted to `--split`, with `--noise` applied to its training labels.

    cache: where the index of tars is kept. Raises InputError (no images, unknown class, labels that match nothing, …)
    or UsageError (no such split, dataset or column, an option that the dataset does not take).
    """
    request = DatasetRequest(
        located=locate(str(config.source)),
        variant=config.variant,
        seed=config.seed,
        labels=config.labels,
        label_column=config.label_column,
        truth_column=config.truth_column,
        classes_file=config.classes,
        cache=cache,
        progress=progress,
    )
    name, adapter = _adapter(config.dataset, request)
    _refuse_ignored(name, adapter, config)
    dataset = adapter.open(request)
    if config.dataset is None and not adapter.general:
        notes = (f"{request.located.location!r} is recognised as the dataset {name}.", *dataset.notes)
        dataset = replace(dataset, notes=notes)
    dataset = _compact(_restrict(dataset, config.splits))
    if name not in DATASETS.built_in:
        dataset = replace(dataset, layout=name)  # by which `open_files` finds the adapter again
        for manifest in dataset.splits:
            refuse_repeated(Keys.of(manifest.keys), f"Split {manifest.split!r} of the dataset {name!r}")
    if config.noise is not None:
        dataset = add_noise(dataset, config.noise, seed=config.seed, noise_file=config.noise_file, progress=progress)
    return dataset


def _adapter(name: str | None, request: DatasetRequest) -> tuple[str, DatasetAdapter]:
    """The named one, else the one that recognises the source; UsageError where two do.

    Label tables, tars and class folders come after every layout of its own.
    """
    if name is not None:
        return name, DATASETS.load(name)()
    general, found = [], []
    for known in sorted(DATASETS.names(), key=lambda known: known in DATASETS.built_in):
        adapter: DatasetAdapter = DATASETS.load(known)()
        if adapter.general:
            general.append((known, adapter))
        elif adapter.recognise(request):
            found.append((known, adapter))
    if len(found) > 1:
        names = [known for known, _ in found]
        raise UsageError(
            f"{request.located.location!r} is recognised as each of: {', '.join(names)}.",
            so="Their labels or classes differ.",
            do=f"Say which with --dataset {names[0]} (or another of them).",
        )
    return found[0] if found else next(pair for pair in general if pair[1].recognise(request))


def _refuse_ignored(name: str, adapter: DatasetAdapter, config: EmbedConfig) -> None:
    given = {
        "--labels": config.labels is not None,
        "--label-column": config.label_column != DatasetRequest.label_column,
        "--truth-column": config.truth_column is not None,
        "--classes": config.classes is not None,
        "--variant": config.variant is not None,
    }
    ignored = [option for option, on in given.items() if on and option not in adapter.takes]
    if ignored:
        raise UsageError(
            f"{' and '.join(ignored)} does not apply to the dataset {name!r}.",
            so="Its labels would not be those that were asked for.",
            do="Leave it out, or name another --dataset, or give the labels of your own with --labels FILE.",
        )


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
                f"--split {name!r} is not in the source; it has: {', '.join(by_name)}{meant(name, by_name)}",
                do="Name one of these, or leave --split out to take all.",
            )
        chosen[manifest.split] = manifest
    dropped = sum(len(manifest) for name, manifest in by_name.items() if name not in chosen)
    return replace(
        dataset,
        splits=tuple(manifest for manifest in dataset.splits if manifest.split in chosen),
        left_out=dataset.left_out + dropped,
    )


def _compact(dataset: Dataset) -> Dataset:
    """Whatever an adapter gives its keys as, from here on they take little memory."""
    splits = tuple(replace(manifest, keys=Keys.of(manifest.keys)) for manifest in dataset.splits)
    return replace(dataset, splits=splits)


def open_files(source: Mapping[str, Any], *, cache: Path | None = None) -> Storage | None:
    """The images of a store. source: its provenance, with a Dataset's `root` (its files' location) and `layout`.

    None if there is nothing there any more; MissingPackageError where the dataset's package is not installed.
    """
    location, layout = source.get("root"), source.get("layout")
    if location is None:
        return None
    name = "folders" if layout is None or layout in _OF_FOLDERS else str(layout)
    if name not in DATASETS:
        raise MissingPackageError(
            f"{location} was embedded as the dataset {name!r}, which is not installed here.",
            so="Its images cannot be read.",
            do="Install the package that brings it.",
        )
    adapter: DatasetAdapter = DATASETS.load(name)()
    try:
        return adapter.reopen(locate(location), cache=cache)
    except (InputError, OSError):
        return None


def open_files_for_page(source: Mapping[str, Any], *, cache: Path | None, progress: Progress) -> Storage | None:
    """`open_files` for a page that says something without images too: a missing package is a warning."""
    try:
        return open_files(source, cache=cache)
    except MissingPackageError as exc:
        progress.warn(f"The page will show fewer images. {exc}")
        return None
