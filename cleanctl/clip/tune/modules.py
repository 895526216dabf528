"""The modules that tuning puts into a block of an open_clip ViT, each a wrapper of the part that it changes.

Legend: B images of a batch, L tokens of an image (class token and patches), T prompt tokens, D width of the tower.
The values that they start with come from insert.py.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


class PromptedBlock(nn.Module):
    """A block that sees T prompt tokens behind the image's own, in place of those that the block before it saw.

    prompt_TD: None where the tokens before it go on (VPT-shallow). last: gives the L tokens of the image alone, so that
    any pooling works.
    """

    def __init__(self, block: nn.Module, prompt_TD: nn.Parameter | None, *, length: int, last: bool) -> None:
        super().__init__()
        self.block, self.prompt_TD, self.length, self.last = block, prompt_TD, length, last

    def forward(self, x: Tensor, attn_mask: Tensor | None = None) -> Tensor:
        if self.prompt_TD is not None:
            prompt_BTD = self.prompt_TD.to(x.dtype).expand(len(x), -1, -1)
            x = torch.cat([x[:, : self.length], prompt_BTD], dim=1)
        x = self.block(x, attn_mask=attn_mask)
        return x[:, : self.length] if self.last else x


class LowRank(nn.Module):
    """x ↦ x·A·B/r with A (D, r) and B (r, D) (docs/method.md C.1)."""

    def __init__(self, A: nn.Parameter, B: nn.Parameter) -> None:
        super().__init__()
        self.A, self.B = A, B

    def forward(self, x: Tensor) -> Tensor:
        return (x @ self.A) @ self.B / self.A.shape[1]


class ScaleShift(nn.Module):
    """x ↦ x·scale + shift, for each channel."""

    def __init__(self, scale: nn.Parameter, shift: nn.Parameter) -> None:
        super().__init__()
        self.scale, self.shift = scale, shift

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale + self.shift


class Attention(nn.Module):
    """Self-attention with the weights of an `nn.MultiheadAttention`, with its call, and with places to change it.

    joint: applied to q, k and v together, as they leave the projection. q and v: added to these, from the same input.
    out: applied to the result. Where one is None, nothing is done there.
    """

    def __init__(
        self,
        base: nn.MultiheadAttention,
        *,
        joint: nn.Module | None = None,
        q: nn.Module | None = None,
        v: nn.Module | None = None,
        out: nn.Module | None = None,
    ) -> None:
        super().__init__()
        assert base.in_proj_weight is not None
        assert base.batch_first
        assert base.dropout == 0
        self.base, self.joint, self.q, self.v, self.out = base, joint, q, v, out

    def forward(
        self, x: Tensor, _k: Tensor, _v: Tensor, need_weights: bool = False, attn_mask: Tensor | None = None
    ) -> tuple[Tensor, None]:
        assert not need_weights
        base = self.base
        qkv = F.linear(x, base.in_proj_weight, base.in_proj_bias)
        if self.joint is not None:
            qkv = self.joint(qkv)
        q, k, v = qkv.chunk(3, dim=-1)
        q = q if self.q is None else q + self.q(x)
        v = v if self.v is None else v + self.v(x)
        q, k, v = (part.unflatten(-1, (base.num_heads, -1)).transpose(1, 2) for part in (q, k, v))
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=attn_mask).transpose(1, 2).flatten(2)
        result = F.linear(mixed, base.out_proj.weight, base.out_proj.bias)
        return (result if self.out is None else self.out(result)), None


class AdaptedMlp(nn.Module):
    """mlp(x) + adapter(mlp(x)); with `replace` the second term alone, as released."""

    def __init__(self, mlp: nn.Module, adapter: nn.Module, *, replace: bool) -> None:
        super().__init__()
        self.mlp, self.adapter, self.replace = mlp, adapter, replace

    def forward(self, x: Tensor) -> Tensor:
        branch: Tensor = self.mlp(x)
        change: Tensor = self.adapter(branch)
        return change if self.replace else branch + change


class Recomputed(nn.Module):
    """A block that keeps its input alone for the backward pass and computes the rest again there."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: Tensor, **options: Any) -> Tensor:
        result: Tensor = checkpoint(self.block, x, use_reentrant=False, preserve_rng_state=False, **options)
        return result
