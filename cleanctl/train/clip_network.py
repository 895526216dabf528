"""CLIP's own image tower as a classifier: the network `clip` (the store's model) or `clip:MODEL[ TAG]`.

In: open_clip's name of a model, and its tag or weights file after a blank. Out: (B, 3, S, S) normalised images → (B, C)
logits. What is trained is docs/method.md C.1's second phase: the blocks and a fresh head; stem or patch embedding,
position embeddings, ln_pre and ln_post stay as they were. Of a ViT the head sees the class token after ln_post, before
the projection; of another tower what its pooling gives.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from cleanctl.clip.provenance import EncoderInfo, ModelSource
from cleanctl.errors import InputError, StoreError

STORES_MODEL = "clip"
PREFIX = "clip:"
MODELS_WEIGHTS = "model"  # in place of a file: the weights that the model's name says


def is_clip(network: str) -> bool:
    return network == STORES_MODEL or network.startswith(PREFIX)


def name_of(encoder: Mapping[str, Any]) -> str:
    """The network's full name for what a store holds of its encoder. Raises StoreError where it was not a model."""
    try:
        info = EncoderInfo.from_json(encoder)
    except (LookupError, TypeError) as exc:
        raise StoreError(
            "The store's embeddings came from elsewhere, not from a model of open_clip's.",
            so="--network clip has no model to start from.",
            do="Name one: --network clip:MODEL, or take a network of timm's.",
        ) from exc
    return PREFIX + info.model + (f" {info.pretrained}" if info.pretrained else "")


class ClipClassifier(nn.Module):
    """tower: under tuning of all blocks. head: (C, width), torch's default start."""

    def __init__(self, visual: nn.Module, width: int, num_classes: int) -> None:
        from cleanctl.clip.tune.tower import tune_tower
        from cleanctl.config.tune import TuneSettings

        super().__init__()
        self.tower = tune_tower(visual, TuneSettings(name="full"))
        self.head = nn.Linear(width, num_classes)

    def forward(self, image: Tensor) -> Tensor:
        logit: Tensor = self.head(self.tower(image))
        return logit


def build_clip_classifier(network: str, num_classes: int, weights: str | None) -> ClipClassifier:
    """weights: None for the architecture alone, MODELS_WEIGHTS, or "download" (these, fetched if need be).

    Raises UsageError or InputError for a model or weights that are not there, InputError for a tower that cannot be
    tuned.
    """
    model, _, tag = network.removeprefix(PREFIX).partition(" ")
    if model.startswith("local-dir:"):
        model, tag = network.removeprefix(PREFIX), ""
    if weights in (MODELS_WEIGHTS, "download"):
        visual = _with_weights(model, tag, download=weights == "download")
    else:
        visual = _architecture(model)
    return ClipClassifier(visual, _without_projection(visual), num_classes)


def _with_weights(model: str, tag: str, *, download: bool) -> nn.Module:
    from cleanctl.clip.encoder import load_encoder
    from cleanctl.clip.models import resolve_model

    source: ModelSource = resolve_model(model, tag or None, download=download)
    visual: nn.Module = load_encoder(source, device="cpu", precision="fp32").model.visual
    return visual


def _architecture(model: str) -> nn.Module:
    import open_clip

    from cleanctl.clip.models import resolve_model

    known = open_clip.get_model_config(model) if model in open_clip.list_models() else None
    config = resolve_model(model, None).config if known is None else known
    text = {"context_length": 8, "vocab_size": 8, "width": 8, "heads": 1, "layers": 1}  # its tower is not used
    quick_gelu = bool(config.get("quick_gelu", False))
    visual: nn.Module = open_clip.CLIP(config["embed_dim"], config["vision_cfg"], text, quick_gelu=quick_gelu).visual
    return visual


def _without_projection(visual: nn.Module) -> int:
    """Takes the projection into the joint space away where it stands by itself; gives the width of what is left."""
    from open_clip.timm_model import TimmModel
    from open_clip.transformer import VisionTransformer

    if isinstance(visual, VisionTransformer):
        assert isinstance(visual.proj, Tensor)
        width = int(visual.proj.shape[0])
        visual.proj = None
        return width
    if isinstance(visual, TimmModel) and isinstance(getattr(visual.head, "proj", None), nn.Linear):
        width = int(visual.head.proj.in_features)
        visual.head.proj = nn.Identity()
        return width
    found = getattr(visual, "output_dim", None)
    if not isinstance(found, int):
        raise InputError(
            f"The image tower {type(visual).__name__} does not say how wide its output is.",
            do="Take a network of timm's: --network resnet50.",
        )
    return found
