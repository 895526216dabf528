"""cleanctl: which labels of a large image dataset to trust, why, and a classifier trained on the result.

The verbs are in `cleanctl.api`; importing this package loads nothing heavy.
"""

__version__ = "0.1.0"
