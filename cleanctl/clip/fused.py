"""An image tower's layer norms and QuickGELUs by the kernels of `cleanctl_kernels.tower`, where nothing is trained.

`fuse` puts subclasses in the place of open_clip's modules, with the same parameters under the same names. Wherever
gradients may be asked for they compute as open_clip does, so a tower that is tuned is the same tower.
"""

from __future__ import annotations

import torch
from cleanctl_kernels.tower import layer_norm, quick_gelu
from open_clip.transformer import LayerNormFp32, QuickGELU
from torch import nn


class FusedLayerNorm(LayerNormFp32):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if torch.is_grad_enabled() or self.weight is None or self.bias is None or len(self.normalized_shape) != 1:
            return super().forward(x)
        return layer_norm(x, self.weight, self.bias, eps=self.eps)


class FusedQuickGelu(QuickGELU):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) if torch.is_grad_enabled() else quick_gelu(x)


FUSED: dict[type[nn.Module], type[nn.Module]] = {LayerNormFp32: FusedLayerNorm, QuickGELU: FusedQuickGelu}


def fuse(tower: nn.Module) -> int:
    """How many of the tower's modules were exchanged, in place."""
    count = 0
    for parent in list(tower.modules()):
        for name, child in list(parent.named_children()):
            if type(child) in FUSED:
                setattr(parent, name, _as(FUSED[type(child)], child))
                count += 1
    return count


def _as(kind: type[nn.Module], module: nn.Module) -> nn.Module:
    """A module of that subclass which shares everything with the one it takes the place of."""
    made = kind.__new__(kind)
    made.__dict__ = module.__dict__
    return made
