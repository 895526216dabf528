"""`add_noise`: a dataset → the same with noisy labels in its training split, and the label set to be written down."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cleanctl.config import Noise
from cleanctl.datasets.cifar_classes import CIFAR10_CLASSES, CIFAR100_CLASSES
from cleanctl.datasets.columns import UNKNOWN
from cleanctl.datasets.noise.draw import corrupt, drawn_rows
from cleanctl.datasets.noise.instance import PixelVectors, instance_noise
from cleanctl.datasets.noise.label_sets import label_hash, write_cache
from cleanctl.datasets.noise.read import ReadLabels, read_cache, read_labels
from cleanctl.errors import UsageError
from cleanctl.progress import SILENT, Progress
from cleanctl.records import KNOWN_WRONG, Dataset, LabelSet, SplitManifest


def add_noise(
    dataset: Dataset,
    noise: Noise,
    *,
    seed: int,
    split: str = "train",
    noise_file: Path | str | None = None,
    progress: Progress = SILENT,
) -> Dataset:
    """The dataset with noisy labels in `split`; what the labels were becomes the truth, unless a truth was known.

    Labels are drawn, or stand in a file, in the published order of the rows where the dataset gives one, else in the
    order of sorted keys. A note says which, how many labels changed, and the hash of the labels in that order.
    noise_file: where the published label set is, or the cache of a drawn one, which is read if it is there, else
    written. Raises UsageError if the split is not there or has no such noise, InputError for an odd file.
    """
    manifest = next((manifest for manifest in dataset.splits if manifest.split == split), None)
    if manifest is None:
        found = ", ".join(manifest.split for manifest in dataset.splits)
        raise UsageError(
            f"--noise needs a split named {split!r}, and the source has: {found}.",
            do="Leave --noise out, or embed the training split too.",
        )
    cache = None if noise_file is None else os.fspath(noise_file)
    made = _Made(dataset, manifest, noise, seed, cache, progress)
    noisy, label_set = made.result()
    return replace(
        dataset,
        splits=tuple(noisy if one is manifest else one for one in dataset.splits),
        notes=(*dataset.notes, made.note(label_set)),
        label_set=label_set,
    )


@dataclass
class _Made:
    """One request. `remark` is what is said of where the labels came from."""

    dataset: Dataset
    manifest: SplitManifest
    noise: Noise
    seed: int
    cache: str | None
    progress: Progress
    remark: str = ""

    @property
    def classes(self) -> tuple[str, ...]:
        """The dataset's own names, by which some kinds know a class, whatever `--classes` calls it."""
        own = {"cifar10": CIFAR10_CLASSES, "cifar100": CIFAR100_CLASSES}
        return own.get(self.dataset.layout, self.dataset.classes)

    def result(self) -> tuple[SplitManifest, LabelSet]:
        manifest, published_N = self.manifest, self.manifest.published_N
        row_N = np.arange(len(manifest)) if published_N is None else np.argsort(published_N, kind="stable")
        made_N, read = self._labels(row_N)
        label_N = np.empty_like(made_N)
        label_N[row_N] = made_N
        truth_N = manifest.label_N if manifest.truth_N is None else manifest.truth_N
        # Of a label known to be wrong, another is neither known to be wrong nor to be right.
        truth_N = np.where((truth_N == KNOWN_WRONG) & (label_N != manifest.label_N), np.int32(UNKNOWN), truth_N)
        known_N = truth_N != UNKNOWN
        label_set = LabelSet(
            split=manifest.split,
            noise=str(self.noise) if not self.noise.name else f"{self.noise.kind}:{Path(self.noise.name).name}",
            seed=self.seed if self.noise.drawn else None,
            order="keys" if published_N is None else "published",
            label_N=made_N,
            changed=int((label_N != manifest.label_N).sum()),
            wrong=float((label_N != truth_N)[known_N].mean()) if known_N.any() else 0.0,
            digest=label_hash(made_N),
            file="" if read is None else Path(read.file).name,
            file_digest="" if read is None else read.digest,
        )
        return replace(manifest, label_N=label_N, truth_N=truth_N), label_set

    def note(self, made: LabelSet) -> str:
        seed = "" if made.seed is None else f" with seed {made.seed}"
        order = (
            "in the dataset's published order"
            if made.order == "published"
            else "in the order of sorted keys; published seeds give the published labels only in the published order"
        )
        return (
            f"Noise {made.noise}{seed} changed {made.changed:,} of {len(made.label_N):,} labels of {made.split!r} "
            f"(label hash {made.digest}), {'drawn' if self.noise.drawn else 'rows'} {order}.{self.remark}"
        )

    def _labels(self, row_N: np.ndarray) -> tuple[np.ndarray, ReadLabels | None]:
        """Labels in the order of row_N, and the file that they were read from."""
        clean_N, classes = self.manifest.label_N[row_N], self.classes
        if not self.noise.drawn:
            read = read_labels(self.noise, clean_N, classes, root=self.dataset.files.location, given=self.cache)
            self.remark = f" They were read from {read.file!r}."
            return read.noisy_N, read
        if self.cache is None:
            return self._draw(clean_N, row_N), None
        if not os.path.lexists(self.cache):
            made_N = self._draw(clean_N, row_N)
            try:
                write_cache(Path(self.cache), made_N, self._drawn(clean_N, made_N))
                self.remark += f" They were written to {self.cache!r}."
                return made_N, None
            except FileExistsError:
                pass  # another process of this run was faster
        read = read_cache(self.cache, clean_N, classes)
        self.remark = f" They were read from {read.file!r}{self._agreement(read, clean_N)}."
        return read.noisy_N, read

    def _draw(self, clean_N: np.ndarray, row_N: np.ndarray) -> np.ndarray:
        if self.noise.kind != "idn":
            return corrupt(clean_N, self.noise, classes=self.classes, seed=self.seed)
        keys = self.manifest.keys
        vectors = PixelVectors(self.dataset.files, [keys[row] for row in row_N.tolist()])
        with self.progress.track("noise from images", total=len(keys), unit="images") as task:
            made_N = instance_noise(
                clean_N, vectors, rate=self.noise.rate, classes=len(self.classes), seed=self.seed, task=task
            )
        if vectors.unreadable:
            self.remark = f" {vectors.unreadable:,} images could not be read and keep their labels."
        return made_N

    def _drawn(self, clean_N: np.ndarray, made_N: np.ndarray) -> list[int]:
        """What a cache calls closed noise: the rows drawn; of noise from images, the rows that changed."""
        if self.noise.kind == "idn":
            return np.flatnonzero(made_N != clean_N).tolist()
        return drawn_rows(len(clean_N), self.noise.rate, self.seed)

    def _agreement(self, read: ReadLabels, clean_N: np.ndarray) -> str:
        """Whether a cache holds what its recipe gives; noise from images is not made again for that."""
        if self.noise.kind == "idn":
            return ""
        drawn_N = corrupt(clean_N, self.noise, classes=self.classes, seed=self.seed)
        return (
            f"; seed {self.seed} gives the same labels"
            if np.array_equal(drawn_N, read.noisy_N)
            else f", and are not those that seed {self.seed} gives"
        )
