"""`open_loader`: rows of one split → batches of uint8 crops, by FFCV, torch or nvJPEG, and a note of which and why.

In: the keys of a split, where their bytes are, the PixelSpec of a model or a network. Out: an ImageLoader
(records.py). All loaders give the pixels of open_clip's own transform (within one grey level; FFCV's differ by one more
resampling for images beyond its file's resolution limit, nvJPEG's by its chroma). `auto` never takes nvJPEG: where it
wins depends on the GPU and on the number of cores, and `python -m bench.embed` measures it on the machine at hand.

For training: any order and any repetition of rows (class-balanced sampling), each epoch another, by the `row_N` handed
to `batches`. With `crop=RandomCrop(...)` or `WindowCrop(...)` each position of the epoch gets a random crop, and
`batches(..., seed=epoch_seed)` makes it reproducible: the same seed gives the same crops on all loaders. Flips and
colours are for the trainer, on whole batches.

The FFCV loader leaves the `.beton` file and its row table on disk, see `beton.py`; the others leave nothing.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from cleanctl.config import LOADERS, one_of
from cleanctl.errors import InputError, MissingPackageError, install_command
from cleanctl.images.geometry import Crop
from cleanctl.images.nvjpeg_loader import open_nvjpeg
from cleanctl.images.packed.pack import Watch, begin_packing, limit_for, pack
from cleanctl.images.torch_loader import TorchLoader
from cleanctl.progress import SILENT, Progress
from cleanctl.records import Fingerprints, ImageBatch, PixelSpec, Storage


class SeededLoader(Protocol):
    """An ImageLoader whose `batches` also takes the seed of its random crops, and how many of the epoch's are done."""

    name: str

    def batches(self, row_N: np.ndarray, *, batch_size: int, seed: int = 0, done: int = 0) -> Iterator[ImageBatch]: ...

    def close(self) -> None: ...


@dataclass(frozen=True, kw_only=True)
class LoaderRequest:
    """What a loader is to give, and what is known of its files.

    beton: the FFCV file's place; without one FFCV is not used. workers: processes (torch) or threads; None means one
    for each core. retry_failed: images that could not be packed before are tried again. fingerprints: of the files as
    they are now, where the caller knows them. watch: told of what packing reads and what fails; it may raise.
    on_device: crops that are made on a GPU may stay there (ImageBatch.on_device).
    first_row: all rows from there on will be asked for once, in order. Where they are not packed yet, that pass packs
    them (packing_loader.py), and `watch` hears nothing.
    """

    files: Storage
    keys: Sequence[str]
    spec: PixelSpec
    beton: Path | None = None
    crop: Crop | None = None
    workers: int | None = None
    retry_failed: bool = False
    fingerprints: Fingerprints | None = None
    watch: Watch | None = None
    first_row: int | None = None
    on_device: bool = False


def open_loader(request: LoaderRequest, kind: str = "auto", progress: Progress = SILENT) -> SeededLoader:
    """`kind` is one of LOADERS. With `auto`, FFCV where it is installed and `request.beton` names its file, else torch.

    The file is packed if it is missing or no longer matches the images. Raises MissingPackageError for `ffcv` without
    FFCV, InputError for `ffcv` whose file cannot be written.
    """
    one_of("--loader", kind, LOADERS)
    files, keys, spec, crop = request.files, request.keys, request.spec, request.crop
    if kind == "nvjpeg":
        nvjpeg = open_nvjpeg(
            files=files, keys=keys, spec=spec, crop=crop, threads=request.workers, on_device=request.on_device
        )
        progress.note("Loader nvjpeg: JPEGs are decoded on the GPU.")
        return nvjpeg
    why = _why_not_ffcv(kind, request.beton)
    if why is None:
        try:
            return _open_packing(request, progress) or _open_ffcv(request, progress)
        except InputError as exc:
            if kind == "ffcv":
                raise
            why = str(exc)
    progress.note(f"Loader torch: {why}")
    return TorchLoader(files=files, keys=keys, spec=spec, crop=crop, workers=request.workers, progress=progress)


def _why_not_ffcv(kind: str, beton: Path | None) -> str | None:
    if kind == "torch":
        return "asked for."
    if importlib.util.find_spec("ffcv") is None:
        if kind == "ffcv":
            raise MissingPackageError.of("ffcv", extra="ffcv", needed_for="--loader ffcv")
        return f"FFCV is not installed ({install_command('ffcv')})."
    if beton is None:
        assert kind == "auto", "the FFCV loader needs a place for its file"
        return "no place for an FFCV file was given."
    return None


def _open_ffcv(request: LoaderRequest, progress: Progress) -> SeededLoader:
    """Raises InputError if the file cannot be written, or if FFCV is there and does not load."""
    with _importing_ffcv():
        from cleanctl.images.ffcv_loader import FfcvLoader
    assert request.beton is not None
    table = pack(
        files=request.files,
        keys=request.keys,
        path=request.beton,
        limit=limit_for(request.spec.size),
        retry_failed=request.retry_failed,
        fingerprints=request.fingerprints,
        watch=request.watch,
        progress=progress,
    )
    progress.note(f"Loader ffcv: {request.beton.name}.")
    return FfcvLoader(
        path=request.beton,
        table=table,
        files=request.files,
        spec=request.spec,
        crop=request.crop,
        threads=request.workers,
    )


def _open_packing(request: LoaderRequest, progress: Progress) -> SeededLoader | None:
    """None where the file is to be packed before, or is packed already. Raises as `_open_ffcv` does."""
    first_row, beton = request.first_row, request.beton
    if first_row is None or request.retry_failed or request.crop is not None:
        return None
    with _importing_ffcv():
        from cleanctl.images.packing_loader import PackingLoader
    assert beton is not None
    packing = begin_packing(
        files=request.files,
        keys=request.keys,
        path=beton,
        limit=limit_for(request.spec.size),
        first_row=first_row,
        fingerprints=request.fingerprints,
    )
    if packing is None:
        return None
    loader = PackingLoader(packing=packing, spec=request.spec, threads=request.workers)
    progress.note(f"Loader ffcv: {beton.name}, packed in the same pass.")
    if first_row:
        try:
            with progress.track(f"packing {beton.name}", total=first_row, unit="images") as task:
                loader.skip(first_row, task)
        except BaseException:
            loader.close()
            raise
    return loader


@contextmanager
def _importing_ffcv() -> Iterator[None]:
    import torch

    threads = torch.get_num_threads()
    try:
        yield
    except (ImportError, OSError) as exc:
        raise InputError(
            f"FFCV is installed and cannot be loaded: {exc}.",
            do="Install its system libraries (Debian: libopencv-dev libturbojpeg0-dev) and build it again.",
        ) from exc
    finally:
        torch.set_num_threads(threads)  # importing FFCV sets it to 1, for everything that computes later
