"""Triton kernels of cleanctl, each beside its PyTorch reference and a CPU twin; depends on torch and triton only."""
