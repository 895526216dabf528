"""What an encoder is, on paper: its provenance in the store (`EncoderInfo`) and a resolved one that is not built yet.

Plain records; nothing here touches a network or builds a model. `ModelSource.weights_sha256` reads the weights once.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from cleanctl.clip import weights
from cleanctl.records import PixelSpec

PACKAGES = ("torch", "torchvision", "open_clip_torch", "timm", "pillow", "numpy", "cleanctl")


@dataclass(frozen=True, kw_only=True)
class EncoderInfo:
    """What made an embedding, as the store's provenance.

    Two embeddings may stand in one store only if `identity` agrees; the other fields inform. architecture: SHA-256 of
    the architecture's configuration, 16 hex digits, so that moving a `local-dir:` changes nothing.
    """

    model: str
    pretrained: str | None
    architecture: str
    weights_sha256: str
    pixels: PixelSpec
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    precision: str
    dim: int
    packages: Mapping[str, str]
    logit_scale: float | None = None
    logit_bias: float | None = None

    def identity(self) -> dict[str, Any]:
        """Everything that changes the numbers beyond rounding, but the precision."""
        return {
            "architecture": self.architecture,
            "weights_sha256": self.weights_sha256,
            "pixels": asdict(self.pixels),
            "mean": list(self.mean),
            "std": list(self.std),
        }

    def to_json(self) -> dict[str, Any]:
        """JSON values; `from_json` is the inverse."""
        values = {**asdict(self), "mean": list(self.mean), "std": list(self.std), "packages": dict(self.packages)}
        return values

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> EncoderInfo:
        rest = {**values, "pixels": PixelSpec(**values["pixels"])}
        return cls(**{**rest, "mean": tuple(values["mean"]), "std": tuple(values["std"])})

    def __str__(self) -> str:
        tag = f" {self.pretrained}" if self.pretrained else ""
        return f"{self.model}{tag} (weights {self.weights_sha256[:12]}, {self.pixels.size} px, {self.precision})"


@dataclass(frozen=True, kw_only=True)
class ModelSource:
    """A resolved encoder: `config` is open_clip's model configuration, `weights` a file on this disk.

    `open_clip_name` is what open_clip builds it by: a registered name or `local-dir:DIR`.
    """

    name: str
    open_clip_name: str
    pretrained: str | None
    config: Mapping[str, Any]
    pixels: PixelSpec
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    weights: Path
    download: bool = False
    notes: tuple[str, ...] = ()

    @cached_property
    def weights_sha256(self) -> str:
        return weights.sha256_of(self.weights)

    @cached_property
    def logits(self) -> tuple[float | None, float | None]:
        """(exp(logit_scale), logit_bias) of the weights."""
        return weights.read_logits(self.weights)

    @property
    def dim(self) -> int:
        """Embedding size D."""
        return int(self.config["embed_dim"])

    def info(self, precision: str) -> EncoderInfo:
        """The provenance of embeddings made at `precision` (fp16, bf16 or fp32)."""
        text = json.dumps(self.config, sort_keys=True, default=str)
        return EncoderInfo(
            model=self.name,
            pretrained=self.pretrained,
            architecture=hashlib.sha256(text.encode()).hexdigest()[:16],
            weights_sha256=self.weights_sha256,
            pixels=self.pixels,
            mean=self.mean,
            std=self.std,
            precision=precision,
            dim=self.dim,
            packages=package_versions(),
            logit_scale=self.logits[0],
            logit_bias=self.logits[1],
        )


def package_versions() -> dict[str, str]:
    """The versions of what shapes an embedding; absent packages are left out."""
    return dict(_package_versions())


@cache
def _package_versions() -> dict[str, str]:
    """Read once a process: seven files of metadata take hundredths of a second."""
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
