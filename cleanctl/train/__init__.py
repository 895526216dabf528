"""MixFix and plain cross-entropy: networks, augmentation, sampling, the loop, recipes."""

from cleanctl.train.run import train
from cleanctl.train.trained import finished_runs, open_run

__all__ = ["finished_runs", "open_run", "train"]
