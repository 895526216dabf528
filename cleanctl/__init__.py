"""cleanctl: which labels of a large image dataset to trust, why, and a classifier trained on the result.

The verbs are in `cleanctl.api`; importing this package loads nothing heavy. Import it before torch: it sets how the
threads of torch, scikit-learn and Numba wait for work (`cleanctl.runtime.THREAD_SETTINGS`), which they read once.
"""

from cleanctl.runtime import set_thread_defaults as _set_thread_defaults

__version__ = "0.1.0"

_set_thread_defaults()
