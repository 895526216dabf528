"""Which image towers can be tuned, and in which ways: what a tower of open_clip is to tuning.

    ViT                open_clip's VisionTransformer of plain blocks          every way
    ViT, other blocks  open_clip's with blocks of its own, timm's             bias, partial:K, full
    ResNet             open_clip's ModifiedResNet, timm's ResNet              bias, partial:K, full

`blocks` of a ResNet are its residual blocks; stem and pooling are none of them, as patch embedding, ln_pre, ln_post and
the projection of a ViT are none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from cleanctl.config.tune import TUNES, TuneSettings, spelled
from cleanctl.errors import InputError, UsageError

ANY_BLOCKS = ("bias", "partial", "full")


@dataclass(frozen=True, kw_only=True)
class Tower:
    """kind: in a person's words. tunes: the names that it can be tuned by. blocks: name within the tower → block."""

    kind: str
    tunes: tuple[str, ...]
    blocks: dict[str, Any]

    def require(self, settings: TuneSettings) -> None:
        """Raises UsageError unless the tower can be tuned so."""
        if settings.name not in self.tunes:
            ways = ", ".join(name for name in spelled() if name.partition(":")[0] in self.tunes)
            raise UsageError(
                f"--tune is {str(settings)!r}, but the image tower is {self.kind}.", do=f"It can be tuned by: {ways}."
            )
        if settings.last > len(self.blocks):
            raise UsageError(
                f"--tune is {str(settings)!r}, but the image tower has {len(self.blocks)} blocks.",
                do=f"Give a number from 1 to {len(self.blocks)}.",
            )


def look_at(visual: nn.Module) -> Tower:
    """The tower that `visual` (of an open_clip model) is. Raises InputError for one of another kind."""
    from open_clip.modified_resnet import ModifiedResNet
    from open_clip.timm_model import TimmModel
    from open_clip.transformer import ResidualAttentionBlock, VisionTransformer

    if isinstance(visual, VisionTransformer):
        found = _named(visual, "transformer.resblocks")
        plain = all(isinstance(block, ResidualAttentionBlock) for block in found.values())
        kind = "a ViT" if plain else "a ViT with blocks of its own kind"
        return Tower(kind=kind, tunes=tuple(TUNES) if plain else ANY_BLOCKS, blocks=found)
    if isinstance(visual, ModifiedResNet):
        return Tower(kind="a ResNet", tunes=ANY_BLOCKS, blocks=_stages(visual, ""))
    if isinstance(visual, TimmModel):
        from timm.models import ResNet
        from timm.models import VisionTransformer as TimmViT

        if isinstance(visual.trunk, ResNet):
            return Tower(kind="a ResNet", tunes=ANY_BLOCKS, blocks=_stages(visual, "trunk."))
        if isinstance(visual.trunk, TimmViT):
            return Tower(kind="a ViT of timm's", tunes=ANY_BLOCKS, blocks=_named(visual, "trunk.blocks"))
        kind = f"timm's {type(visual.trunk).__name__}"
    else:
        kind = type(visual).__name__
    raise InputError(
        f"The image tower is {kind}, which cannot be tuned.",
        so="ViT and ResNet towers can.",
        do="Use --tune prompts or class-vectors, which leave the tower as it is, or a store made by another model.",
    )


def _named(visual: nn.Module, place: str) -> dict[str, nn.Module]:
    return {f"{place}.{name}": block for name, block in visual.get_submodule(place).named_children()}


def _stages(visual: nn.Module, prefix: str) -> dict[str, nn.Module]:
    stages = [_named(visual, f"{prefix}layer{number}") for number in (1, 2, 3, 4)]
    return {name: block for stage in stages for name, block in stage.items()}


def replace_block(visual: nn.Module, name: str, block: nn.Module) -> None:
    """Puts `block` into the tower's place `name`, a name of `Tower.blocks`."""
    parent, _, number = name.rpartition(".")
    setattr(visual.get_submodule(parent), number, block)
