"""Datasets whose files follow a published layout of their own, a file each; opened by name with `--dataset`."""
