"""Triton kernels of cleanctl, each beside a twin for any device and a plain reference.

Depends on numpy, and where an array is a tensor on torch and array-api-compat, on CUDA on triton. `pixels_to_input`
works on tensors alone: `cleanctl_kernels.pixels` imports torch.
"""

from cleanctl_kernels.mixture import mixture_em
from cleanctl_kernels.paths import path_taken
from cleanctl_kernels.prompts import PromptBank, prompt_bank
from cleanctl_kernels.softmax import softmax_residual
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
    "prompt_bank",
    "softmax_residual",
    "zeroshot_stats",
]
