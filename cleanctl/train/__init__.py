"""Training on a selection, in the order of reading: run.py, the verb; recipe.py and pool.py, with which numbers and on
which rows; sets.py and pixels.py, their images; session.py, epoch after epoch; engine.py, the steps of one; methods/,
what a step is; networks.py and augment.py; rundir.py, what lies in a run's folder; trained.py, to use it again.
Beside them: metrics.py and events.py, what an epoch's line counts and TensorBoard shows; seeds.py and ranks.py, several
runs of one setting and several processes of one run.

The names below load with their first use: who only reads a run's folder does not wait for torch.
"""

from importlib import import_module
from typing import Any

_PLACES = {"train": "run", "finished_runs": "trained", "open_run": "trained"}
__all__ = ["finished_runs", "open_run", "train"]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
