"""Label noise: drawn by a seed as the releases draw it, or read from the sets that others published."""

from cleanctl.datasets.cifar_classes import CIFAR10_CLASSES
from cleanctl.datasets.noise.apply import add_noise
from cleanctl.datasets.noise.draw import corrupt
from cleanctl.datasets.noise.label_sets import label_hash

__all__ = ["CIFAR10_CLASSES", "add_noise", "corrupt", "label_hash"]
