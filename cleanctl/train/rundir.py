"""A run's folder: who it is, how far it is, what it found. Everything in it is written whole or not at all.

    config.json     what was asked for and in force: config, recipe, classes, selection and its fingerprint
    metrics.jsonl   one JSON object an epoch, in order, without gaps or repeats
    tensorboard/    the same for TensorBoard, with --tensorboard
    state.pt        everything needed to go on, while the run is not finished
    best.pt         the network after its best epoch on the test split (where the store has one)
    last.pt         the network after the last epoch
    result.json     the outcome; its presence says that the run is finished
    diverged.json   where a loss was not finite: epoch, step, learning rate, keys of the batch

The .pt files hold tensors, numbers and text only and load with `torch.load(weights_only=True)`.
"""

from __future__ import annotations

import io
import json
import pickle
import shutil
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cleanctl.errors import InputError, StoreError
from cleanctl.files.atomic import remove_partials, write_file
from cleanctl.store.locks import writer_lock

CHECKSUM = "checksum"  # of a JSON file, CRC-32 over the rest
TRAIN_ANEW = "Run the same cleanctl train again with --no-resume, or choose another --name."
_UNREADABLE = (InputError, pickle.UnpicklingError, zipfile.BadZipFile, zlib.error)


class RunDir:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.json"
        self.metrics = path / "metrics.jsonl"
        self.state = path / "state.pt"
        self.best = path / "best.pt"
        self.last = path / "last.pt"
        self.result = path / "result.json"
        self.diverged = path / "diverged.json"
        self.events = path / "tensorboard"

    @contextmanager
    def lock(self) -> Iterator[None]:
        """This process alone trains here; leftovers of killed writes are swept away."""
        with writer_lock(self.path):
            remove_partials(self.path)
            yield

    def clear(self) -> None:
        for file in (self.result, self.state, self.best, self.last, self.metrics, self.diverged, self.config):
            file.unlink(missing_ok=True)
        shutil.rmtree(self.events, ignore_errors=True)

    def claim(
        self,
        description: dict[str, Any],
        identity: tuple[str, ...],
        *,
        resume: bool,
        upgrade: Callable[[dict[str, Any]], dict[str, Any]] = lambda there: there,
    ) -> bool:
        """Makes the folder this run's own; True if an earlier run of the same description can go on.

        identity: the keys of `description` that must agree. upgrade: a description as an earlier version wrote it → as
        this one would. Raises StoreError where another run lives here.
        """
        if self.config.exists() and resume:
            self._require_same(upgrade(read_json(self.config)), description, identity)
            return True
        self.clear()
        write_json(self.config, description)
        return False

    def _require_same(self, there: dict[str, Any], description: dict[str, Any], identity: tuple[str, ...]) -> None:
        wanted = json.loads(json.dumps(description))
        differ = [line for key in identity for line in _differences(key, there.get(key), wanted.get(key))]
        if differ:
            raise StoreError(
                f"The run {self.path} was started with other settings: {'; '.join(differ[:4])}.",
                so="Going on would mix two experiments.",
                do="Give this one its own --name, or start it over with --no-resume.",
            )

    def write_metrics(self, history: list[dict[str, Any]]) -> None:
        """The whole file anew: a kill between state and metrics can neither repeat nor lose an epoch."""
        write_file(self.metrics, "".join(json.dumps(line) + "\n" for line in history).encode())


def _differences(key: str, there: Any, wanted: Any) -> list[str]:
    if isinstance(there, dict) and isinstance(wanted, dict):
        keys = sorted(set(there) | set(wanted))
        return [line for k in keys for line in _differences(k, there.get(k), wanted.get(k))]
    return [] if there == wanted else [f"{key} was {_short(there)}, now {_short(wanted)}"]


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."


def write_json(path: Path, value: dict[str, Any]) -> None:
    value = {**json.loads(json.dumps(value)), CHECKSUM: _checksum(value)}
    write_file(path, (json.dumps(value, indent=2) + "\n").encode())


def read_json(path: Path) -> dict[str, Any]:
    """What `write_json` wrote; StoreError if it is not. Files of earlier versions carry no checksum."""
    with reporting_damage(path):
        value = json.loads(path.read_text("utf-8"))
        if not isinstance(value, dict):
            raise TypeError(f"it holds {_short(value)} where an object belongs")
        if value.pop(CHECKSUM, None) not in (None, _checksum(value)):
            raise ValueError("its content does not have its checksum")
        return value


def _checksum(value: dict[str, Any]) -> str:
    return f"{zlib.crc32(json.dumps(value, sort_keys=True).encode()):08x}"


@contextmanager
def reporting_damage(path: Path) -> Iterator[None]:
    """Turns what a damaged file of a run leads to into a StoreError that names the file."""
    try:
        yield
    except (OSError, ValueError, TypeError, LookupError, AttributeError, RuntimeError, EOFError, *_UNREADABLE) as exc:
        why = " ".join(f"{exc}".split())[:300] or type(exc).__name__
        raise StoreError(
            f"{path} is damaged: {why}.",
            so="Nothing is computed from it.",
            do=TRAIN_ANEW,
        ) from exc


def write_tensors(path: Path, value: dict[str, Any]) -> None:
    import torch

    buffer = io.BytesIO()
    torch.save(value, buffer)
    write_file(path, buffer.getbuffer())


def read_tensors(path: Path, device: str = "cpu") -> dict[str, Any]:
    """A checkpoint, without running any code that it might hold; StoreError if it is damaged or more."""
    import torch

    with reporting_damage(path):
        with zipfile.ZipFile(path) as archive:  # torch does not look at the checksums that it writes
            if (broken := archive.testzip()) is not None:
                raise ValueError(f"its part {broken} does not have its checksum")
        value = torch.load(path, map_location=device, weights_only=True)
        if not isinstance(value, dict) or not value:
            raise TypeError("it holds no checkpoint")
        return value


def finished_runs(folder: Path) -> list[Path]:
    """Run folders under `folder` that have a result, the one finished last at the end."""
    found = [path.parent for path in folder.glob("*/result.json")]
    return sorted(found, key=lambda path: (path / "result.json").stat().st_mtime_ns)


def checkpoints(folder: Path) -> list[str]:
    """Those that a run must have by its result; of a run without one, those that it has so far."""
    run = RunDir(folder)
    if not run.result.exists():
        return [name for name, path in (("best", run.best), ("last", run.last)) if path.exists()] or ["last"]
    return ["best", "last"] if read_json(run.result).get("best_epoch") is not None else ["last"]
