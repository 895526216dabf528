"""Triton kernels of cleanctl, each beside its PyTorch reference and a CPU twin; depends on torch and triton only."""

from cleanctl_kernels.mixture import mixture_em
from cleanctl_kernels.paths import path_taken
from cleanctl_kernels.pixels import pixels_to_input
from cleanctl_kernels.prompts import PromptBank, prompt_bank
from cleanctl_kernels.types import ClassStats, Mixtures, Ragged, Window
from cleanctl_kernels.zeroshot import zeroshot_stats

__all__ = [
    "ClassStats",
    "Mixtures",
    "PromptBank",
    "Ragged",
    "Window",
    "mixture_em",
    "path_taken",
    "pixels_to_input",
    "prompt_bank",
    "zeroshot_stats",
]
