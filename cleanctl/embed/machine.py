"""Device, precision and, once something is to be encoded, the encoder of a run."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

from cleanctl.clip.encoder import Encoder, load_encoder
from cleanctl.clip.models import ModelSource
from cleanctl.clip.provenance import EncoderInfo
from cleanctl.config import EmbedConfig
from cleanctl.errors import StoreError
from cleanctl.progress import Progress
from cleanctl.runtime import Choice, choose_device, choose_precision


class Machine:
    """A run with nothing to encode never builds `encoder`."""

    def __init__(self, source: ModelSource, config: EmbedConfig, progress: Progress) -> None:
        self.source = source
        self.device = choose_device(config.device)
        self.precision = choose_precision(config.precision, self.device.value)
        self._asked = config.precision != "auto"
        self._progress = progress
        self._conflict: StoreError | None = None

    @property
    def info(self) -> EncoderInfo:
        return self.source.info(self.precision.value)

    @cached_property
    def encoder(self) -> Encoder:
        """Raises StoreError if it would not compute as the store's embeddings were computed."""
        if self._conflict is not None:
            raise self._conflict
        self._progress.note(
            f"Encoder {self.info.model}: {self.device.value} ({self.device.reason}), "
            f"{self.precision.value} ({self.precision.reason})."
        )
        return load_encoder(
            self.source, device=self.device.value, precision=self.precision.value, progress=self._progress
        )

    def join(self, made: EncoderInfo, path: Path) -> None:
        """Goes on in the precision of an existing store, if that was left to us and this device can."""
        if made.precision == self.precision.value:
            return
        if not self._asked and not (made.precision == "fp16" and self.device.value == "cpu"):
            self.precision = Choice(value=made.precision, reason="as the store's other embeddings")
            return
        self._conflict = StoreError(
            f"The embeddings of {path} were made in {made.precision}; this run would make them in "
            f"{self.precision.value} ({self.precision.reason}).",
            so="Mixed precisions shift selections near their thresholds.",
            do=f"Use --precision {made.precision} where the device can, another --store, or --replace to start anew.",
        )
