"""`adapt --apply NAME --engine ray`: actors of a Ray cluster judge a part of a split's readable rows each.

An actor reads embeddings, or images through the detector's tower, and writes what it says of its part (some 30 bytes a
row) beside the store: `.cleanctl.zarr.applied/<fingerprint>/<first>-<end>.npz`. When all parts are there the driver
records them as one score and deletes them; a driver that died goes on with those that it finds. The fingerprint is of
detector, labels and embeddings. Only counts come back through Ray.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import os
import shutil
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from cleanctl.config import AdaptConfig
from cleanctl.distributed.ray_cluster import choose_seat, connected, live_nodes
from cleanctl.distributed.ray_embed import part_length
from cleanctl.distributed.ray_fleet import Fleet
from cleanctl.errors import InterruptedRun, UsageError
from cleanctl.files.atomic import write_file
from cleanctl.paths import applied_dir
from cleanctl.progress import Progress
from cleanctl.results import AdaptResult
from cleanctl.runtime import StopFlag, choose_device, stop_requests, torchrun_place
from cleanctl.store import Split, Store

if TYPE_CHECKING:
    from cleanctl.adapt.detector import Judgement

Span = tuple[int, int]  # of the readable rows: first, end


@dataclass(frozen=True, kw_only=True)
class ApplyJob:
    """The tasks are spans. folder: the detector's. out: where judgements are written."""

    store: Path
    config: AdaptConfig
    folder: Path
    out: Path

    def open(self, progress: Progress, device: Literal["cuda", "cpu"]) -> Any:
        from cleanctl.adapt.applying import labels_of
        from cleanctl.train.loaders import store_loaders

        store = Store.open(self.store)
        split = store.split(self.config.split)
        config = replace(self.config, engine="local", ray_address=None, ray_cores=None, device=device)
        loaders = store_loaders(store, config, progress, packing=False)
        return store, split, labels_of(store, split), config, loaders, progress

    def do(self, opened: Any, task: Span, stop: StopFlag) -> int:
        """The number of rows judged."""
        from cleanctl.adapt.applying import judged_rows
        from cleanctl.adapt.detector import FILE
        from cleanctl.adapt.model import TextModel

        store, split, labels, config, loaders, progress = opened
        # A model of its own: a tower that is tuned is not the store's any more.
        model = TextModel(store, config, device=config.device, progress=progress)
        judgement = judged_rows(split, labels, self.folder / FILE, model, loaders, stop, part=slice(*task))
        buffer = io.BytesIO()
        arrays: dict[str, Any] = {name: values.numpy() for name, values in judgement.save().items()}
        np.savez(buffer, **arrays)
        write_file(span_file(self.out, task), buffer.getbuffer())
        return task[1] - task[0]


def apply_on_ray(store: Store, config: AdaptConfig, *, progress: Progress) -> AdaptResult:
    """Records what a detector says of a split. Raises as adapt, and MissingPackageError without Ray."""
    from cleanctl.adapt.applying import detector_folder, labels_of, record_applied
    from cleanctl.adapt.model import TextModel

    if torchrun_place()[1] > 1:
        raise UsageError("--engine ray was started by torchrun.", do="Start cleanctl adapt without torchrun.")
    store.join_shards(config.split)
    split = store.split(config.split)
    split.require_complete()
    labels = labels_of(store, split)
    folder = detector_folder(TextModel(store, config, device="cpu", progress=progress))
    with connected(config.ray_address, progress) as ray, stop_requests() as stop:
        nodes = live_nodes(ray)
        seat = choose_seat(nodes, config.device, config.ray_cores)
        length = part_length(split.num_rows, seat.count(nodes))
        spans = _spans(labels.row_M, length)
        out = applied_dir(Path(os.path.abspath(store.path))) / _fingerprint(folder, split, length)
        todo = [span for span in spans if not span_file(out, span).is_file()]
        left = sum(end - first for first, end in todo)
        job = ApplyJob(store=Path(os.path.abspath(store.path)), config=config, folder=folder.absolute(), out=out)
        total = len(labels.row_M)
        with (
            Fleet(ray, job, seat, most=len(todo), stop=stop, progress=progress) as fleet,
            progress.track(f"judging {split.name}", total=total, unit="images", done=total - left) as task,
        ):
            done = fleet.run(todo, lambda number, rows: task.advance(rows))
    if not done:
        kept = sum(end - first for first, end in spans if span_file(out, (first, end)).is_file())
        raise InterruptedRun(
            f"Stopped on request: {total - kept:,} of {total:,} images of split {split.name!r} remain.",
            so="What was judged is kept beside the store.",
            do="Run the same command again to go on.",
        )
    here = choose_device("cpu" if config.device == "cpu" else "auto").value  # this machine may have no GPU
    result = record_applied(split, labels, _joined(out, spans), folder, device=here)
    shutil.rmtree(out, ignore_errors=True)
    with suppress(OSError):  # of another split or detector there is more
        out.parent.rmdir()
    return result


def span_file(out: Path, span: Span) -> Path:
    return out / f"{span[0]}-{span[1]}.npz"


def _spans(row_M: np.ndarray, length: int) -> list[Span]:
    """The readable rows of each part of a split, `length` of its rows; parts without any are left out."""
    bounds = np.searchsorted(row_M, np.arange(0, int(row_M[-1]) + length + 1, length))
    return [(int(first), int(end)) for first, end in itertools.pairwise(bounds) if end > first]


def _fingerprint(folder: Path, split: Split, length: int) -> str:
    from cleanctl.adapt.detector import FILE

    detector = hashlib.sha256((folder / FILE).read_bytes()).hexdigest()
    parts = (detector, split.name, split.label_fingerprint(), split.content_fingerprint(), str(length))
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _joined(out: Path, spans: list[Span]) -> Judgement:
    from cleanctl.adapt.detector import Judgement

    judgement: Judgement | None = None
    for span in spans:
        with np.load(span_file(out, span), allow_pickle=False) as saved:
            if judgement is None:
                judgement = Judgement(spans[-1][1], agree="clean_class" in saved.files)
            judgement.take(slice(*span), {name: saved[name] for name in saved.files})
    assert judgement is not None
    return judgement
