"""An image tower under tuning: `tune_tower` freezes it, puts in what the settings name, and gives the trained part.

In: the image tower of an open_clip model (`model.visual`) in float32 or float64, and TuneSettings. Lower precision is
autocast's, so that what is trained stays exact. The tower is changed in place and stays in evaluation mode: the batch
norms of a ResNet keep their running statistics, no dropout is drawn. Nothing is written.

Legend: B images of a batch, S pixels, E of the joint space.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from cleanctl.clip.tune.insert import insert
from cleanctl.clip.tune.modules import Recomputed
from cleanctl.clip.tune.towers import look_at, replace_block
from cleanctl.config.tune import TuneSettings
from cleanctl.errors import StoreError


class TunedTower(nn.Module):
    """`trained`: name → parameter, of all that has a gradient and of nothing else."""

    def __init__(self, visual: nn.Module, settings: TuneSettings, trained: Mapping[str, nn.Parameter]) -> None:
        super().__init__()
        self.visual, self.settings, self.trained = visual, settings, dict(trained)
        self._recomputes = False

    def train(self, mode: bool = True) -> TunedTower:
        """Stays in evaluation mode, see the head of the file."""
        return super().train(False)

    def forward(self, input_BCSS: Tensor) -> Tensor:
        """Normalised images → feature_BE, not of unit length."""
        feature = self.visual(input_BCSS)
        feature_BE: Tensor = feature[0] if isinstance(feature, tuple) else feature  # CoCa gives its tokens too
        return feature_BE

    def count(self) -> int:
        """How many numbers are trained."""
        return sum(parameter.numel() for parameter in self.trained.values())

    def values(self) -> dict[str, Tensor]:
        """The trained numbers, copied to the CPU."""
        return {name: parameter.detach().cpu().clone() for name, parameter in self.trained.items()}

    def set_values(self, values: Mapping[str, Tensor]) -> None:
        """The other direction of `values`. Raises StoreError unless names and shapes are this tower's."""
        own = {name: tuple(parameter.shape) for name, parameter in self.trained.items()}
        given = {name: tuple(value.shape) for name, value in values.items()}
        if own != given:
            differ = sorted(name for name in own.keys() | given.keys() if own.get(name) != given.get(name))
            raise StoreError(
                f"The tuned values do not fit the image tower: {len(differ)} of {len(own.keys() | given.keys())} "
                f"differ, the first is {differ[0]!r}: {given.get(differ[0], 'absent')} is given, "
                f"{own.get(differ[0], 'none')} belongs there.",
                do="Use the model and the --tune that they were learnt with.",
            )
        with torch.no_grad():
            for name, parameter in self.trained.items():
                parameter.copy_(values[name])

    def recompute(self) -> None:
        """Gradient checkpointing: activations within a block are computed again in the backward pass, not kept."""
        if not self._recomputes:
            for name in look_at(self.visual).blocks:
                replace_block(self.visual, name, Recomputed(self.visual.get_submodule(name)))
            self._recomputes = True


def tune_tower(visual: nn.Module, settings: TuneSettings, *, seed: int = 0) -> TunedTower:
    """Freezes `visual` and makes trainable what `settings` name (docs/method.md C.1).

    seed: of what starts at random. Raises UsageError for a tower that cannot be tuned so, InputError for one that
    cannot be tuned at all.
    """
    tower = look_at(visual)
    tower.require(settings)
    assert next(visual.parameters()).dtype in (torch.float32, torch.float64)
    visual.requires_grad_(False).eval()
    trained = insert(visual, tower, settings, seed)
    for parameter in trained.values():
        parameter.requires_grad_(True)
    return TunedTower(visual, settings, trained)


def trained_shapes(config: Mapping[str, Any], settings: TuneSettings) -> dict[str, tuple[int, ...]]:
    """Name → shape of what would be trained, from open_clip's model configuration alone: no weights are made."""
    import open_clip

    text = {"context_length": 8, "vocab_size": 8, "width": 8, "heads": 1, "layers": 1}  # its tower does not matter
    with torch.device("meta"):
        model = open_clip.CLIP(config["embed_dim"], config["vision_cfg"], text)
    tuned = tune_tower(model.visual, settings)
    return {name: tuple(parameter.shape) for name, parameter in tuned.trained.items()}
