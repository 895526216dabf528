"""A run's metrics as TensorBoard shows them: event files in the run folder's `tensorboard/`, if `--tensorboard` asks.

They repeat metrics.jsonl, which stays the record: a run that goes on writes all epochs anew, so that a kill can neither
lose nor repeat one.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from cleanctl.errors import MissingPackageError


class EventLog:
    """Numbers of each epoch as scalars, by the names of metrics.jsonl; what is None is left out."""

    def __init__(self, folder: Path, history: list[dict[str, Any]]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        shutil.rmtree(folder, ignore_errors=True)
        self._writer = SummaryWriter(log_dir=str(folder))
        for line in history:
            self.write(line)

    def write(self, line: dict[str, Any]) -> None:
        for name, value in line.items():
            if name != "epoch" and isinstance(value, int | float):
                self._writer.add_scalar(name, value, global_step=line["epoch"])
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


def require_tensorboard() -> None:
    """MissingPackageError unless event files can be written."""
    try:
        import tensorboard  # noqa: F401
    except ImportError as exc:
        raise MissingPackageError.of("tensorboard", extra="tensorboard", needed_for="--tensorboard") from exc
