"""Training on a selection, in the order of reading: run.py, the verb; recipe.py and pool.py, with which numbers and on
which rows; sets.py and pixels.py, their images; session.py, epoch after epoch; engine.py, the steps of one; methods/,
what a step is; networks.py and augment.py; rundir.py, what lies in a run's folder; trained.py, to use it again.
"""

from cleanctl.train.run import train
from cleanctl.train.trained import finished_runs, open_run

__all__ = ["finished_runs", "open_run", "train"]
