"""MixFix and plain cross-entropy: networks, augmentation, sampling, the loop, recipes."""

from cleanctl.train.run import train
from cleanctl.train.session import TrainResult

__all__ = ["TrainResult", "train"]
