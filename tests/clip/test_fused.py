"""A tower whose elementwise steps are fused is the same tower, and one that is trained computes as open_clip does."""

from __future__ import annotations

import copy

import open_clip
import pytest
import torch
from open_clip.transformer import LayerNormFp32, QuickGELU

from cleanctl.clip import fused
from cleanctl.clip.fused import FusedLayerNorm, FusedQuickGelu, fuse

VISION = {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8}
TEXT = {"context_length": 8, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}


@pytest.fixture
def towers():
    """open_clip's of random weights in bf16, and the same fused."""
    torch.manual_seed(0)
    model = open_clip.CLIP(16, VISION, TEXT, quick_gelu=True, cast_dtype=torch.bfloat16)
    tower = model.visual.eval()
    return tower, copy.deepcopy(tower)


def test_every_norm_and_activation_is_exchanged_and_shares_its_parameters(towers):
    tower, exchanged = towers
    before = dict(exchanged.named_parameters())
    assert fuse(exchanged) == 2 + 2 * 3  # around the blocks; of each block two norms and its activation
    kinds = [type(module) for module in exchanged.modules()]
    assert (kinds.count(FusedLayerNorm), kinds.count(FusedQuickGelu)) == (6, 2)
    assert LayerNormFp32 not in kinds
    assert QuickGELU not in kinds
    assert exchanged.state_dict().keys() == tower.state_dict().keys()
    assert all(one is before[name] for name, one in exchanged.named_parameters())


def test_embeddings_are_the_towers_own_and_gradients_flow_where_it_is_trained(towers, monkeypatch):
    tower, exchanged = towers
    fuse(exchanged)
    calls = []
    norm, gelu = fused.layer_norm, fused.quick_gelu
    monkeypatch.setattr(fused, "layer_norm", lambda *a, **k: calls.append("norm") or norm(*a, **k))
    monkeypatch.setattr(fused, "quick_gelu", lambda x: calls.append("gelu") or gelu(x))
    image = torch.randn(3, 3, 32, 32)
    with torch.inference_mode():
        torch.testing.assert_close(exchanged(image), tower(image))
    assert (calls.count("norm"), calls.count("gelu")) == (6, 2)
    calls.clear()
    exchanged(image).sum().backward()
    assert not calls
    assert all(one.grad is not None for one in exchanged.parameters() if one.requires_grad)
