"""The demo's dataset: drawn JPEG files, a table of partly wrong labels, and the class names.

`draw_dataset` leaves in its folder
    images/train/00000.jpg …   one drawn thing each, 64 to 200 px a side, JPEG quality 45 to 95
    images/test/00000.jpg …    the same, for a split whose labels are right
    labels.csv                 path (below images/), label, truth, split; names, not numbers
    classes.txt                a name a line, in label order
    drawing.json               what was asked for; written last, so its presence says that the rest is whole
Each image has a seed of its own: its pixels depend on (seed, split, number) and neither on how many others there are
nor on which process draws it. File names say nothing of the class.
"""

from __future__ import annotations

import csv
import io
import json
import multiprocessing
import shutil
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from cleanctl.demo.scene import Scene, choose_scene, render
from cleanctl.demo.shapes import CLASSES, look_alike
from cleanctl.files.atomic import replacing, write_file
from cleanctl.progress import SILENT, Progress
from cleanctl.runtime import cpu_count

STAMP = "drawing.json"
NOISE_RATE = 0.4
LOOK_ALIKE_SHARE = 0.5
_SPLIT_STREAM = {"train": 0, "test": 1}
_LABEL_STREAM = 2
_CHUNK = 100


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """What to draw. A change of any field, the drawing style's number included, means drawing anew."""

    train: int = 4000
    test: int = 1000
    seed: int = 0
    style: int = 2

    def lies_in(self, folder: Path) -> bool:
        fingerprint = folder / STAMP
        return fingerprint.is_file() and fingerprint.read_text() == json.dumps(asdict(self))


@dataclass(frozen=True, kw_only=True)
class DrawnFiles:
    """Where a drawing lies. `reused` is True where an earlier run had left the same one."""

    images: Path
    labels: Path
    classes: Path
    reused: bool


def draw_dataset(
    folder: Path, drawing: Drawing, *, progress: Progress = SILENT, workers: int | None = None
) -> DrawnFiles:
    """Draws into `folder`, or finds there what an earlier call with the same `drawing` left."""
    reused = drawing.lies_in(folder)
    if not reused:
        (folder / STAMP).unlink(missing_ok=True)
        shutil.rmtree(folder / "images", ignore_errors=True)
        truth = {"train": drawing.train, "test": drawing.test}
        truth_by_split = {
            split: _draw_split(folder, split, n, drawing.seed, progress, workers) for split, n in truth.items()
        }
        _write_tables(folder, truth_by_split, drawing.seed)
        write_file(folder / STAMP, json.dumps(asdict(drawing)).encode())
    return DrawnFiles(
        images=folder / "images", labels=folder / "labels.csv", classes=folder / "classes.txt", reused=reused
    )


def plan_image(seed: int, stream: int, number: int) -> tuple[Scene, np.random.Generator]:
    """What is in an image, its class too, and the generator that paints it: both from the image's own seed."""
    rng = np.random.default_rng([seed, stream, number])
    return choose_scene(int(rng.integers(len(CLASSES))), rng), rng


def draw_jpeg(seed: int, stream: int, number: int) -> tuple[Scene, bytes]:
    """One image as a JPEG file's content, and what is in it."""
    scene, rng = plan_image(seed, stream, number)
    buffer = io.BytesIO()
    render(scene, rng).save(buffer, "JPEG", quality=scene.quality)
    return scene, buffer.getvalue()


def wrong_labels(truth_N: np.ndarray, *, seed: int) -> np.ndarray:
    """Labels of which ⌊0.4 N⌋ are wrong: half name the look-alike, half any other class but that one.

    truth_N: int (N,). Returns int64 (N,). The rates are exact, up to rounding down to a whole image.
    """
    rng = np.random.default_rng([seed, _LABEL_STREAM])
    wrong = rng.permutation(len(truth_N))[: int(NOISE_RATE * len(truth_N))]
    alike, other = np.split(wrong, [int(LOOK_ALIKE_SHARE * len(wrong))])
    label_N = truth_N.astype(np.int64)
    label_N[alike] = look_alike(label_N[alike])
    # A pair is 2i and 2i+1: a step of 1…C/2−1 pairs and a coin reach each class of the other pairs alike.
    pair = (label_N[other] // 2 + rng.integers(1, len(CLASSES) // 2, size=len(other))) % (len(CLASSES) // 2)
    label_N[other] = 2 * pair + rng.integers(0, 2, size=len(other))
    return label_N


def _draw_split(folder: Path, split: str, count: int, seed: int, progress: Progress, workers: int | None) -> np.ndarray:
    target = folder / "images" / split
    target.mkdir(parents=True)
    starts = range(0, count, _CHUNK)
    jobs = [(target, seed, _SPLIT_STREAM[split], start, min(start + _CHUNK, count)) for start in starts]
    label_N: list[int] = []
    with progress.track(f"Drawing {split} images", total=count, unit="images") as task:
        for labels in _over_cores(jobs, cpu_count() if workers is None else workers):
            label_N += labels
            task.advance(len(labels))
    return np.array(label_N)


def _over_cores(jobs: list[tuple[Path, int, int, int, int]], workers: int) -> Iterator[list[int]]:
    if workers <= 1:
        yield from map(_draw_files, jobs)
        return
    # Forking a process in which torch has started threads can hang; fresh ones load numpy and Pillow alone.
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(_draw_files, jobs)


def _draw_files(job: tuple[Path, int, int, int, int]) -> list[int]:
    target, seed, stream, start, stop = job
    labels = []
    for number in range(start, stop):
        scene, data = draw_jpeg(seed, stream, number)
        (target / f"{number:05d}.jpg").write_bytes(data)
        labels.append(scene.label)
    return labels


def _write_tables(folder: Path, truth_by_split: dict[str, np.ndarray], seed: int) -> None:
    (folder / "classes.txt").write_text("\n".join(CLASSES) + "\n")
    with replacing(folder / "labels.csv") as partial, partial.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("path", "label", "truth", "split"))
        for split, truth_N in truth_by_split.items():
            label_N = wrong_labels(truth_N, seed=seed) if split == "train" else truth_N
            for number, (label, truth) in enumerate(zip(label_N, truth_N)):
                writer.writerow((f"{split}/{number:05d}.jpg", CLASSES[label], CLASSES[truth], split))
