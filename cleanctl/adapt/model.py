"""The CLIP model of a store, for what is learnt beside it: resolved by the store's provenance, built when asked for."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

from cleanctl.clip.encoder import Encoder, load_encoder
from cleanctl.clip.models import resolve_model
from cleanctl.clip.provenance import EncoderInfo
from cleanctl.clip.tune.learnt_file import Learnt, tokenizer_fingerprint
from cleanctl.config import AdaptConfig
from cleanctl.errors import StoreError
from cleanctl.progress import Progress
from cleanctl.records import PixelSpec
from cleanctl.store import Store


class TextModel:
    """A store's model in float32 on `device`; nothing is read before `network` or `tokenizer` is asked for."""

    def __init__(self, store: Store, config: AdaptConfig, *, device: str, progress: Progress) -> None:
        self.store, self.config, self.device, self.progress = store, config, device, progress

    @cached_property
    def encoder(self) -> Encoder:
        """Raises StoreError unless the weights are those that made the store; InputError where they are not here."""
        made = self.store.encoder
        if "weights_sha256" not in made:
            raise StoreError(
                f"{self.store.path} was imported from arrays, and no model belongs to it.",
                so="Prompts cannot be learnt without a text tower.",
                do="Use --tune class-vectors, which reads embeddings alone.",
            )
        moved = self.config.model is not None
        pretrained = self.config.pretrained or (None if moved else made.get("pretrained"))
        source = resolve_model(self.config.model or str(made["model"]), pretrained)
        mine, theirs = source.info("fp32").identity(), EncoderInfo.from_json(made).identity()
        if differ := [name for name in mine if mine[name] != theirs[name]]:
            raise StoreError(
                f"{source.weights} is not the model that made {self.store.path} (they differ in: {', '.join(differ)}).",
                so="Its prompts would not fit the store's embeddings.",
                do="Name the store's own model with --model and --pretrained.",
            )
        return load_encoder(source, device=self.device, precision="fp32", progress=self.progress)

    @property
    def network(self) -> Any:
        return self.encoder.model

    @property
    def tokenizer(self) -> Any:
        return self.encoder.tokenizer

    def require_tokenizer(self, path: Path, learnt: Learnt) -> None:
        """StoreError unless this model's tokenizer is the one that a file was learnt with."""
        here = tokenizer_fingerprint(self.tokenizer, learnt.classes)
        learnt.require_fit(path, encoder_of(self.store), here, learnt.classes)


def encoder_of(store: Store) -> EncoderInfo:
    """What made a store's embeddings. Imported arrays do not say: their dimension stands for it."""
    made = store.encoder
    if "weights_sha256" in made:
        return EncoderInfo.from_json(made)
    return EncoderInfo(
        model="imported arrays",
        pretrained=None,
        architecture=f"{made.get('dim')} dimensions",
        weights_sha256="",
        pixels=PixelSpec(size=0),
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        precision="",
        dim=int(made.get("dim") or 0),
        packages={},
    )
