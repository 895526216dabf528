"""`store_loaders`: loaders of a store's images at any geometry. Leaves nothing on disk but packed files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from cleanctl.datasets.source import open_files
from cleanctl.errors import StoreError
from cleanctl.images.geometry import Crop
from cleanctl.images.loaders import LoaderRequest, SeededLoader, open_loader
from cleanctl.paths import beton_path, tars_path
from cleanctl.progress import Progress
from cleanctl.records import PixelSpec
from cleanctl.store import Store

if TYPE_CHECKING:  # it needs torch, of which a verb that opens no loader has no need
    from cleanctl.train.sets import LoaderFactory


class ReadsImages(Protocol):
    """What of a verb's config says how its images are read."""

    @property
    def loader(self) -> str: ...

    @property
    def workers(self) -> int | None: ...


def store_loaders(store: Store, config: ReadsImages, progress: Progress, *, packing: bool = True) -> LoaderFactory:
    """Loaders of the store's splits at any geometry; StoreError where the images are out of reach. packing: False for
    one that reads a part of the images once: packed files are then used where they are there."""

    def open_split(split: str, spec: PixelSpec, crop: Crop | None = None) -> SeededLoader:
        files = open_files(store.source, cache=tars_path(store.path))
        if files is None:
            root = store.source.get("root")
            raise StoreError(
                f"The images of {store.path} are not here: "
                + (f"nothing can be read at {root}." if root else "it was imported from arrays."),
                so="A network cannot be trained or tested without them.",
                do="Bring them back, or embed them from where they are now: cleanctl embed SOURCE",
            )
        beton = beton_path(store.path, split)
        request = LoaderRequest(
            files=files,
            keys=store.split(split).keys(),
            spec=spec,
            crop=crop,
            beton=beton if packing or config.loader == "ffcv" or beton.exists() else None,
            workers=config.workers,
        )
        return open_loader(request, config.loader, progress)

    return open_split
