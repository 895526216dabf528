"""Tars that webdataset reads: samples `000000000.jpg`, `.cls` (class number) and `.json`, shards of 10,000."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path

from cleanctl.export.chosen import Chosen
from cleanctl.export.targets.target import SUFFIXES, Target, Written, readable_images
from cleanctl.files.sniff import content_type
from cleanctl.progress import Progress

SHARD_SAMPLES = 10_000


class WebDatasetTars(Target):
    """The same bytes on every run: times are 0, owners nobody."""

    folder = True

    def names(self, chosen: Chosen) -> Sequence[str]:
        return [_shard(chosen, number) for number in range(-(-len(chosen) // SHARD_SAMPLES))]

    def write(self, place: Path, chosen: Chosen, progress: Progress) -> Written:
        (place / "classes.txt").write_text("".join(f"{name}\n" for name in chosen.classes), "utf-8")
        written, tar = 0, None
        try:
            for at, data in readable_images(chosen, progress):
                if written % SHARD_SAMPLES == 0:
                    tar = _next(tar, place / _shard(chosen, written // SHARD_SAMPLES))
                assert tar is not None
                _add_sample(tar, chosen, at, data)
                written += 1
        finally:
            if tar is not None:
                tar.close()
        return Written(missing=len(chosen) - written, examples=tuple(self.names(chosen)[:3]))


def _shard(chosen: Chosen, number: int) -> str:
    return f"{chosen.split}-{number:06d}.tar"


def _next(tar: tarfile.TarFile | None, path: Path) -> tarfile.TarFile:
    if tar is not None:
        tar.close()
    return tarfile.open(path, "w", format=tarfile.USTAR_FORMAT)


def _add_sample(tar: tarfile.TarFile, chosen: Chosen, at: int, data: bytes) -> None:
    about = {
        "key": chosen.keys[at],
        "label": int(chosen.label_M[at]),
        "label_name": chosen.label_name(at),
        "given_label": int(chosen.given_M[at]),
        "p_label": float(chosen.p_label_M[at]),
    }
    suffix = SUFFIXES.get(content_type(data), Path(chosen.keys[at]).suffix.lower() or ".bin")
    for ending, part in (
        (suffix, data),
        (".cls", str(int(chosen.label_M[at])).encode()),
        (".json", json.dumps(about).encode()),
    ):
        info = tarfile.TarInfo(f"{at:09d}{ending}")
        info.size = len(part)
        tar.addfile(info, io.BytesIO(part))
