"""Tuning an image tower of CLIP by few of its numbers, or by all (docs/adapt.md); tower.py is the entry.

Our own modules and not the package peft: its LoRA of `nn.MultiheadAttention` adapts q, k, v and the output projection
together, where the method adapts q and v alone; it has no visual prompts, no adapter behind an MLP and no scale-shift
for open_clip's towers; and it installs transformers and accelerate.
"""
