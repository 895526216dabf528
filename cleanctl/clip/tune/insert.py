"""Each way to tune: what is put into a tower or taken of its own, and the values that it starts with.

Every function changes the tower in place and gives name → parameter of what is to be trained. Names are the tower's own
or `blocks.I.…` of what was put in. Random starts are drawn on the CPU from one generator, block after block.

Legend: D width, T prompt tokens, r rank.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from cleanctl.clip.tune.modules import AdaptedMlp, Attention, LowRank, PromptedBlock, ScaleShift
from cleanctl.clip.tune.towers import Tower, replace_block
from cleanctl.config.tune import TuneSettings

Trained = dict[str, nn.Parameter]
SSF_DEVIATION = 0.02  # of the released code's start


class Draw:
    """New parameters in the precision and on the device of `like`."""

    def __init__(self, seed: int, like: Tensor) -> None:
        self._generator, self._like = torch.Generator().manual_seed(seed), like

    def value(self, start: Tensor) -> nn.Parameter:
        return nn.Parameter(start.to(self._like))

    def uniform(self, *shape: int, bound: float) -> nn.Parameter:
        return self.value(torch.empty(shape).uniform_(-bound, bound, generator=self._generator))

    def normal(self, *shape: int, mean: float = 0.0, deviation: float) -> nn.Parameter:
        return self.value(torch.empty(shape).normal_(mean, deviation, generator=self._generator))


def insert(visual: nn.Module, tower: Tower, settings: TuneSettings, seed: int) -> Trained:
    """What `settings` name, put in and given; `tower.require(settings)` must have passed."""
    like = next(visual.parameters())
    return _WAYS[settings.name](visual, tower, settings, Draw(seed, like))


def _prompts(visual: Any, tower: Tower, settings: TuneSettings, draw: Draw) -> Trained:
    """Uniform in ±√(6/(3·P² + D)) for patches of P pixels (docs/method.md C.1)."""
    height, width = visual.patch_size
    depth = visual.positional_embedding.shape[1]
    bound = math.sqrt(6 / (3 * height * width + depth))
    length = visual.positional_embedding.shape[0]
    trained: Trained = {}
    for number, (name, block) in enumerate(tower.blocks.items()):
        prompt = None
        if number == 0 or settings.name == "vpt-deep":
            prompt = draw.uniform(settings.tokens, depth, bound=bound)
            trained[f"blocks.{number}.prompt"] = prompt
        last = number == len(tower.blocks) - 1
        replace_block(visual, name, PromptedBlock(block, prompt, length=length, last=last))
    return trained


def _lora(visual: Any, tower: Tower, settings: TuneSettings, draw: Draw) -> Trained:
    """B zero; A uniform in ±1/√D, in the released code ±1/√r."""
    trained: Trained = {}
    for number, block in enumerate(tower.blocks.values()):
        width, rank = block.attn.embed_dim, settings.rank
        added = {}
        for part in ("q", "v"):
            A = draw.uniform(width, rank, bound=1 / math.sqrt(rank if settings.published else width))
            B = draw.value(torch.zeros(rank, width))
            trained |= {f"blocks.{number}.{part}.A": A, f"blocks.{number}.{part}.B": B}
            added[part] = LowRank(A, B)
        block.attn = Attention(block.attn, **added)
    return trained


def _adapter(visual: Any, tower: Tower, settings: TuneSettings, draw: Draw) -> Trained:
    """Layer norm, down, ReLU, up. Down normal with deviation 1/√(3D), up zero, biases zero."""
    trained: Trained = {}
    for number, block in enumerate(tower.blocks.values()):
        width = block.attn.embed_dim
        norm, down = nn.LayerNorm(width), nn.Linear(width, settings.bottleneck)
        up = nn.Linear(settings.bottleneck, width)
        norm.weight, norm.bias = draw.value(torch.ones(width)), draw.value(torch.zeros(width))
        down.weight = draw.normal(settings.bottleneck, width, deviation=1 / math.sqrt(3 * width))
        down.bias = draw.value(torch.zeros(settings.bottleneck))
        up.weight, up.bias = draw.value(torch.zeros(width, settings.bottleneck)), draw.value(torch.zeros(width))
        for part, layer in (("norm", norm), ("down", down), ("up", up)):
            trained |= {f"blocks.{number}.adapter.{part}.{key}": value for key, value in layer.named_parameters()}
        adapter = nn.Sequential(norm, down, nn.ReLU(), up)
        block.mlp = AdaptedMlp(block.mlp, adapter, replace=settings.published)
    return trained


def _ssf(visual: Any, tower: Tower, settings: TuneSettings, draw: Draw) -> Trained:
    """Behind the joint projection of q, k and v, the output projection, and either layer of the MLP."""
    trained: Trained = {}
    for number, block in enumerate(tower.blocks.values()):
        width = block.attn.embed_dim
        inner_width = block.mlp.c_fc.out_features
        layer = {}
        for place, size in (("qkv", 3 * width), ("out", width), ("mlp_in", inner_width), ("mlp_out", width)):
            if settings.published:
                scale = draw.normal(size, mean=1.0, deviation=SSF_DEVIATION)
                shift = draw.normal(size, deviation=SSF_DEVIATION)
            else:
                scale, shift = draw.value(torch.ones(size)), draw.value(torch.zeros(size))
            trained |= {f"blocks.{number}.{place}.scale": scale, f"blocks.{number}.{place}.shift": shift}
            layer[place] = ScaleShift(scale, shift)
        block.attn = Attention(block.attn, joint=layer["qkv"], out=layer["out"])
        block.mlp = nn.Sequential(block.mlp.c_fc, layer["mlp_in"], block.mlp.gelu, block.mlp.c_proj, layer["mlp_out"])
    return trained


def _bias(visual: Any, tower: Tower, settings: TuneSettings, draw: Draw) -> Trained:
    """Every parameter of the tower whose name ends so, those outside of blocks too."""
    return {name: value for name, value in visual.named_parameters() if name.endswith("bias")}


def _last_blocks(visual: Any, tower: Tower, settings: TuneSettings, draw: Draw) -> Trained:
    """Of `partial` the last K blocks, of `full` all."""
    chosen = list(tower.blocks.items())[-settings.last :]
    return {f"{name}.{key}": value for name, block in chosen for key, value in block.named_parameters()}


_WAYS: dict[str, Callable[[Any, Tower, TuneSettings, Draw], Trained]] = {
    "vpt-deep": _prompts,
    "vpt-shallow": _prompts,
    "lora": _lora,
    "adapter": _adapter,
    "ssf": _ssf,
    "bias": _bias,
    "partial": _last_blocks,
    "full": _last_blocks,
}
