"""A dataset of another package, one file: images kept as pixels in one .npz, whose rows are the published order.

arrays: pixel (N, H, W, 3) uint8, label (N,) int, split (N,) str, classes (C,) str. Keys are `00000.png` …
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from cleanctl.datasets.adapter import DatasetAdapter, DatasetRequest
from cleanctl.files.fingerprints import no_fingerprints
from cleanctl.files.locate import Located
from cleanctl.files.storage import unread
from cleanctl.records import Dataset, FileContent, Fingerprints, SplitManifest


@lru_cache(maxsize=1)
def _arrays(path: str, mtime_ns: int) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


@dataclass(frozen=True)
class ToyStorage:
    """Each image as PNG, encoded when it is asked for; a copy for another process carries the path alone."""

    location: str

    def arrays(self) -> dict[str, np.ndarray]:
        return _arrays(self.location, os.stat(self.location).st_mtime_ns)

    def read(self, keys: Sequence[str]) -> Iterator[FileContent]:
        pixel_NHWC, mtime_ns = self.arrays()["pixel"], os.stat(self.location).st_mtime_ns
        for key in keys:
            row = int(key.removesuffix(".png"))
            if row >= len(pixel_NHWC):
                yield unread("not in the archive")
                continue
            buffer = io.BytesIO()
            Image.fromarray(pixel_NHWC[row]).save(buffer, "PNG")
            yield FileContent(buffer.getvalue(), buffer.tell(), mtime_ns)

    def stat(self, keys: Sequence[str]) -> Fingerprints:
        fingerprints = no_fingerprints(len(keys))
        for row, content in enumerate(self.read(keys)):
            fingerprints.size_N[row], fingerprints.mtime_ns_N[row] = content.size, content.mtime_ns
        return fingerprints

    def head(self, key: str, count: int) -> bytes:
        return next(self.read([key])).data[:count]


class ToyDataset(DatasetAdapter):
    takes = ()

    def recognise(self, request: DatasetRequest) -> bool:
        return request.located.location.endswith(".npz")

    def open(self, request: DatasetRequest) -> Dataset:
        storage = ToyStorage(request.located.location)
        arrays = storage.arrays()
        splits = []
        for split in np.unique(arrays["split"]).tolist():
            row_N = np.flatnonzero(arrays["split"] == split)[::-1]  # any order will do, so that the test sees it used
            keys = [f"{row:05d}.png" for row in row_N.tolist()]
            order = sorted(range(len(keys)), key=keys.__getitem__)
            splits.append(
                SplitManifest(
                    split=split,
                    keys=[keys[at] for at in order],
                    label_N=arrays["label"][row_N[order]].astype(np.int32),
                    published_N=np.array(order, dtype=np.int64),
                )
            )
        return Dataset(files=storage, layout="", classes=tuple(arrays["classes"].tolist()), splits=tuple(splits))

    def reopen(self, located: Located, *, cache: Path | None) -> ToyStorage:
        return ToyStorage(located.location)
