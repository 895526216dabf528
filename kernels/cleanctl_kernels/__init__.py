"""Triton kernels of cleanctl, each beside its PyTorch reference and a CPU twin; depends on torch and triton only."""

from cleanctl_kernels.mixture_em import Mixtures, Ragged, mixture_em
from cleanctl_kernels.prompts import PromptBank, prompt_bank
from cleanctl_kernels.zeroshot_stats import ClassStats, zeroshot_stats

__all__ = ["ClassStats", "Mixtures", "PromptBank", "Ragged", "mixture_em", "prompt_bank", "zeroshot_stats"]
