"""What was learnt of a CLIP model as one safetensors file: tensors, and in its header what they belong to.

The header's one entry `cleanctl` is JSON: version, how the tower was tuned, the model (weights' digest, architecture,
preprocessing), the tokenizer's fingerprint, class names in order, a digest of the tensors, and what the writer adds.
Such a file loads only beside the model, tokenizer and classes that it was learnt with.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from cleanctl.clip.provenance import EncoderInfo
from cleanctl.config.tune import TuneSettings
from cleanctl.errors import InputError, StoreError
from cleanctl.files.atomic import write_file

HEADER, VERSION = "cleanctl", 1
_PROBES = ("a photo of a dog.", "Zwölf Boxkämpfer, 1234 + 5678", "which has two wheels")


@dataclass(frozen=True, kw_only=True)
class Learnt:
    """Whose the tensors are. tune: None where the image tower is as it was. more: JSON values of the writer's own."""

    tune: TuneSettings | None
    encoder: EncoderInfo
    tokenizer: str
    classes: tuple[str, ...]
    more: Mapping[str, Any] = field(default_factory=dict)

    def require_fit(self, path: Path, encoder: EncoderInfo, tokenizer: str, classes: Sequence[str]) -> None:
        """Raises StoreError unless model, tokenizer and classes are those of the file at `path`."""
        mine, other = self.encoder.identity(), encoder.identity()
        differ = [name for name in mine if mine[name] != other[name]]
        if differ:
            raise StoreError(
                f"{path} was learnt on {self.encoder}, the model here is {encoder}: {', '.join(differ)} differ.",
                so="Its numbers mean nothing beside another model.",
                do="Use the model that it was learnt on, or learn it anew.",
            )
        if self.tokenizer != tokenizer:
            raise StoreError(
                f"{path} was learnt with a tokenizer that splits the same names otherwise "
                f"({self.tokenizer}, here {tokenizer}).",
                do="Use the model folder, with its tokenizer, that it was learnt with.",
            )
        if self.classes != tuple(classes):
            ours, theirs = _first_difference(self.classes, tuple(classes))
            raise StoreError(
                f"{path} was learnt for {len(self.classes)} classes, here are {len(classes)}: {ours!r} there stands "
                f"where {theirs!r} stands here.",
                do="Use the class names, in the order, that it was learnt with.",
            )


def write_learnt(path: Path, tensors: Mapping[str, Tensor], learnt: Learnt) -> None:
    """Writes the file whole or not at all."""
    from safetensors.torch import save

    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    header = {
        "version": VERSION,
        "tune": None if learnt.tune is None else learnt.tune.to_json(),
        "encoder": learnt.encoder.to_json(),
        "tokenizer": learnt.tokenizer,
        "classes": list(learnt.classes),
        "more": dict(learnt.more),
        "tensors_sha256": _digest(whole),
    }
    write_file(path, save(whole, metadata={HEADER: json.dumps(header)}))


def read_learnt(path: Path) -> tuple[dict[str, Tensor], Learnt]:
    """The tensors on the CPU and whose they are. Raises InputError for a file that is absent, damaged or not ours."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise InputError(f"There is no file {os.fspath(path)!r}.", do="Give a file that cleanctl adapt has written.")
    try:
        with safe_open(path, "pt") as file:
            header = json.loads((file.metadata() or {})[HEADER])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no iterator)
        learnt = Learnt(
            tune=None if header["tune"] is None else TuneSettings.from_json(header["tune"]),
            encoder=EncoderInfo.from_json(header["encoder"]),
            tokenizer=header["tokenizer"],
            classes=tuple(header["classes"]),
            more=header["more"],
        )
        if header["version"] != VERSION:
            raise ValueError(f"its version is {header['version']}, this cleanctl reads {VERSION}")
        if header["tensors_sha256"] != _digest(tensors):
            raise ValueError("its tensors do not have their digest")
    except (SafetensorError, OSError, ValueError, LookupError, TypeError, AttributeError, AssertionError) as exc:
        raise InputError(
            f"{path} is damaged or was not written by cleanctl adapt: {type(exc).__name__} {str(exc)[:200]}.",
            so="Nothing is computed from it.",
            do="Bring the file again, or learn it anew.",
        ) from exc
    return tensors, learnt


def tokenizer_fingerprint(tokenizer: Any, classes: Sequence[str]) -> str:
    """SHA-256, 16 hex digits, of the tokens that an open_clip tokenizer makes of the names and of a few sentences."""
    token_PL = tokenizer([*classes, *_PROBES])
    text = json.dumps(token_PL.tolist())
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _digest(tensors: Mapping[str, Tensor]) -> str:
    sha = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        sha.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        sha.update(tensor.contiguous().view(-1).numpy().tobytes())
    return sha.hexdigest()


def _first_difference(ours: tuple[str, ...], theirs: tuple[str, ...]) -> tuple[str | None, str | None]:
    for place in range(max(len(ours), len(theirs))):
        pair = (ours[place] if place < len(ours) else None, theirs[place] if place < len(theirs) else None)
        if pair[0] != pair[1]:
            return pair
    return None, None
