"""Tiny random CLIP models of open_clip in float64: a ViT, a ResNet, and one with a text tower of its own."""

from __future__ import annotations

import open_clip
import torch

VIT = {"image_size": 16, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8}
RESNET = {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "head_width": 8}
TEXT = {"context_length": 24, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2}
SIGLIP_TEXT = TEXT | {"no_causal_mask": True, "pool_type": "last", "proj_bias": True}


def tiny_clip(vision=None, text=None, *, custom=False, seed=0):
    """(model, tokenizer, image size), frozen, in float64."""
    torch.manual_seed(seed)
    kind = open_clip.CustomTextCLIP if custom else open_clip.CLIP
    text = text or TEXT
    vision = vision or VIT
    model = kind(embed_dim=8, vision_cfg=vision, text_cfg=text).double().eval()
    with torch.no_grad():  # random transformers map everything to nearly the same point; this spreads it out
        model.visual.conv1.weight.mul_(8)
        owner = model.text if custom else model
        owner.token_embedding.weight.mul_(50)
        owner.positional_embedding.mul_(10)
    tokenizer = open_clip.SimpleTokenizer(context_length=text["context_length"])
    return model, tokenizer, vision["image_size"]
