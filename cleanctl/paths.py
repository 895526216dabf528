"""Where things lie beside a store, and whether a place is a path or a URL.

cleanctl.zarr                     the store
cleanctl.<split>.beton            the FFCV file of a split, its row table at .beton.parquet
cleanctl.<split>.failures.parquet the split's failed images
cleanctl.<split>.noise.json       the labels that --noise gave the split
cleanctl.tars.parquet             the index of the source's tars
cleanctl.report.html               what `report` writes, its table at cleanctl.report.parquet
cleanctl.<sample>.html            what `review sample` gives a person to look at
cleanctl.runs/                    a folder a training run
cleanctl.detectors/               a folder a run of adapt
"""

from __future__ import annotations

import glob
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from cleanctl.errors import UsageError

if TYPE_CHECKING:
    from cleanctl.records import BlockPart, Shard

DEFAULT_STORE = "cleanctl.zarr"
MAX_STORE_NAME = 100  # bytes; names of files beside it are longer


def store_path(given: Path | str | None = None) -> Path:
    """`--store`, else $CLEANCTL_STORE, else ./cleanctl.zarr; UsageError where no store can lie."""
    place = (os.environ.get("CLEANCTL_STORE") or DEFAULT_STORE) if given is None else given
    path = Path(place)
    if path.name in ("", ".."):  # `.`, `..`: its siblings need its name
        path = Path(os.path.abspath(path))
    if not str(place) or "\0" in str(place):
        wrong = "is empty" if not str(place) else "holds a NUL character"
    elif not path.name:
        wrong = "is the root of the file system"
    elif is_url(place):
        wrong = "is a URL, and a store lies in a folder of this machine"
    elif len(os.fsencode(path.name)) > MAX_STORE_NAME:
        wrong = f"has a name of {len(os.fsencode(path.name))} bytes, more than {MAX_STORE_NAME}"
    else:
        wrong = _obstacle(path)
    if wrong:
        shown = str(place) if len(str(place)) <= 80 else f"{str(place)[:80]}…"
        option = "$CLEANCTL_STORE" if given is None else "--store"
        raise UsageError(f"{option} is {shown!r}, which {wrong}.", do="Name the store's folder, e.g. cleanctl.zarr.")
    return path


def _obstacle(path: Path) -> str:
    """What lies where the store's folder should be or come; empty if nothing hinders."""
    try:
        return "" if stat.S_ISDIR(path.stat().st_mode) else "is a file"
    except FileNotFoundError:
        return f"is a link to {os.readlink(path)}, which does not exist" if path.is_symlink() else ""
    except NotADirectoryError:
        return "lies below a file"
    except OSError as exc:
        return f"cannot be a folder: {exc.strerror}"


def beton_path(store: Path, split: str, shard: Shard | BlockPart | None = None) -> Path:
    """The FFCV file of a split, beside its store: cleanctl.train.beton; of one shard: cleanctl.train.0-of-4.beton."""
    part = "" if shard is None else f".{shard.file_part}"
    return store.with_name(f"{store.stem}.{split}{part}.beton")


def remove_shard_betons(store: Path, split: str) -> None:
    """Deletes the FFCV files of shards: what comes after embedding reads the whole split's."""
    for path in store.parent.glob(f"{glob.escape(store.stem)}.{glob.escape(split)}.*-of-*.beton*"):
        path.unlink(missing_ok=True)


def failures_path(store: Path, split: str) -> Path:
    """The table of a split's failed images, beside its store: cleanctl.zarr → cleanctl.train.failures.parquet."""
    return store.with_name(f"{store.stem}.{split}.failures.parquet")


def applied_dir(store: Path) -> Path:
    """What an engine's workers have judged of a split that is not yet judged whole; gone when it is."""
    return store.with_name(f".{store.name}.applied")


def label_set_path(store: Path, split: str) -> Path:
    """The labels that `--noise` gave a split, beside its store: cleanctl.zarr → cleanctl.train.noise.json."""
    return store.with_name(f"{store.stem}.{split}.noise.json")


def tars_path(store: Path) -> Path:
    """The index of a source's tars, beside the store: cleanctl.zarr → cleanctl.tars.parquet."""
    return store.with_name(f"{store.stem}.tars.parquet")


def report_path(store: Path) -> Path:
    """Where `report` writes its page, beside the store: cleanctl.zarr → cleanctl.report.html."""
    return store.with_name(f"{store.stem}.report.html")


def sample_path(store: Path, name: str) -> Path:
    """The page of labels to check, beside the store: cleanctl.zarr → cleanctl.audit.html."""
    return store.with_name(f"{store.stem}.{name}.html")


def runs_dir(store: Path) -> Path:
    """Where training leaves its runs, beside the store: cleanctl.zarr → cleanctl.runs/."""
    return store.with_name(f"{store.stem}.runs")


def detectors_dir(store: Path) -> Path:
    """Where `adapt` leaves its runs, beside the store: cleanctl.zarr → cleanctl.detectors/."""
    return store.with_name(f"{store.stem}.detectors")


def location(place: Path | str) -> str:
    """An absolute path, or a URL (`s3://bucket/images`; a Path would lose one of its slashes)."""
    if not is_url(place):
        return os.path.abspath(place)
    protocol, mark, rest = str(place).partition("://")
    return protocol + mark + rest.rstrip("/")


def is_url(place: Path | str) -> bool:
    return "://" in str(place)
