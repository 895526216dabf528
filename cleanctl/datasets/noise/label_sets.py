"""Label sets as files: the one that is written beside a store, and the caches of the two releases.

    ours          {"format": "cleanctl label set 1", "noise": …, "seed": …, "order": …, "hash": …, "labels": […]}
    CLIPCleaner   <ratio>_<mode>_noise.json: {"noise_labels": […], "closed_noise": […]}
    DeFT          noise_file/<dataset>_<mode>_<ratio>: […]

Labels stand in the order in which they were drawn; `closed_noise` are the rows drawn, in drawing order.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from cleanctl.errors import InputError
from cleanctl.files.atomic import replacing, reporting_disk_errors, write_file
from cleanctl.records import LabelSet

FORMAT = "cleanctl label set 1"
_CHUNK = 1 << 16


def label_hash(label_N: np.ndarray) -> str:
    """First 16 hex digits of SHA-256 over the labels: as uint8 where they fit (as published), else as int32."""
    small = len(label_N) == 0 or int(np.max(label_N)) < 256
    return hashlib.sha256(np.asarray(label_N).astype("u1" if small else "<i4").tobytes()).hexdigest()[:16]


def write_label_set(path: Path, labels: LabelSet, classes: Sequence[str]) -> bool:
    """Writes `path` whole or not at all, True; False where it holds the same already. Raises StoreError."""
    with reporting_disk_errors(path):
        if _holds(path, labels, classes):
            return False
        with replacing(path) as partial, partial.open("wb") as file:
            file.writelines(_pieces(labels, classes))
    return True


def _pieces(labels: LabelSet, classes: Sequence[str]) -> Iterator[bytes]:
    read_from = {"file": labels.file, "sha256": labels.file_digest} if labels.file else None
    head = {
        "format": FORMAT,
        "split": labels.split,
        "noise": labels.noise,
        "seed": labels.seed,
        "read_from": read_from,
        "order": labels.order,
        "rows": len(labels.label_N),
        "changed": labels.changed,
        "wrong": labels.wrong,
        "hash": labels.digest,
        "classes": list(classes),
    }
    yield json.dumps(head, indent=1, ensure_ascii=False).removesuffix("\n}").encode() + b',\n "labels": ['
    for start in range(0, len(labels.label_N), _CHUNK):
        text = ", ".join(map(str, labels.label_N[start : start + _CHUNK].tolist()))
        yield (b", " if start else b"") + text.encode()
    yield b"]\n}\n"


def _holds(path: Path, labels: LabelSet, classes: Sequence[str]) -> bool:
    with suppress(FileNotFoundError), path.open("rb") as file:
        return all(file.read(len(piece)) == piece for piece in _pieces(labels, classes)) and not file.read(1)
    return False


def cached_labels(data: bytes, file: str) -> list[int]:
    """The labels of any of the three formats. Raises InputError."""
    expected = "a list of labels, or a JSON object with 'noise_labels' or 'labels'"
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as exc:
        raise InputError(f"The label set {file!r} is no JSON: {exc}.", do=f"Give {expected}.") from exc
    fields: dict[str, Any] = found if isinstance(found, dict) else {"labels": found}
    labels = fields.get("noise_labels", fields.get("labels"))
    if not isinstance(labels, list):
        raise InputError(f"The label set {file!r} holds no list of labels.", do=f"Give {expected}.")
    odd = next((row for row, label in enumerate(labels) if type(label) is not int or abs(label) >= 1 << 31), None)
    if odd is not None:
        raise InputError(f"Label {odd:,} of {file!r} is {str(labels[odd])[:40]!r}, no class.", do=f"Give {expected}.")
    if fields.get("format") == FORMAT and fields.get("hash") != label_hash(np.array(labels, dtype=np.int64)):
        raise InputError(
            f"The labels of {file!r} do not have the hash that the file names.", do="Make the label set anew."
        )
    return labels


def write_cache(path: Path, label_N: np.ndarray, drawn: Sequence[int]) -> None:
    """As CLIPCleaner's code where the name ends in .json, else as DeFT's. drawn: the rows drawn, in drawing order.

    Raises FileExistsError if the file is there by now, StoreError.
    """
    labels = label_N.tolist()
    content = {"noise_labels": labels, "closed_noise": list(drawn)} if path.suffix == ".json" else labels
    write_file(path, json.dumps(content).encode(), exclusive=True)
