"""What cleanctl knows by name: scorers, training methods, datasets, table formats, export targets; a line for each.

A line says where the object is (`module:attribute`) without importing it, so that names can be listed and refused
before anything heavy loads. An installed package adds its own through the entry point groups `cleanctl.scorers`,
`cleanctl.methods`, `cleanctl.datasets`, `cleanctl.exporters` and `cleanctl.targets`; they are looked for only where a
name is not ours.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any

from cleanctl.errors import UsageError
from cleanctl.meant import meant


@dataclass(frozen=True)
class Registry:
    """kind: what its objects are, in a person's words. group: the entry point group. built_in: name → place."""

    kind: str
    group: str
    built_in: dict[str, str]

    def names(self) -> tuple[str, ...]:
        """Our own in their order, then those of installed packages, sorted."""
        added = sorted({point.name for point in self._points()} - self.built_in.keys())
        return (*self.built_in, *added)

    def __contains__(self, name: str) -> bool:
        return name in self.built_in or any(self._points(name=name))

    def require(self, name: str, option: str) -> None:
        """UsageError that quotes `option` and suggests a near name, unless `name` is known."""
        if name in self:
            return
        raise UsageError(
            f"{option} is {name!r}, which is no {self.kind}{meant(name, self.names())}",
            do=f"Give one of: {', '.join(self.names())}.",
        )

    def load(self, name: str) -> Any:
        """The object itself; its module is imported now. KeyError for an unknown name."""
        place = self.built_in.get(name)
        if place is None:
            for point in self._points(name=name):
                return point.load()
            raise KeyError(name)
        module, _, attribute = place.partition(":")
        return getattr(import_module(module), attribute)

    def _points(self, **wanted: Any) -> Iterator[Any]:
        yield from _installed(tuple(sys.path)).select(group=self.group, **wanted)


@cache
def _installed(path: tuple[str, ...]) -> Any:
    """The entry points of all packages on the path: a file of each is read, once for a path."""
    from importlib.metadata import entry_points  # loads slowly, and `--help` needs none

    return entry_points()


SCORERS = Registry(
    "scorer",
    "cleanctl.scorers",
    {
        "zeroshot": "cleanctl.score.zeroshot:ZeroShot",
        "logistic": "cleanctl.score.logistic:Logistic",
        "knn": "cleanctl.score.knn:Knn",
        "joint": "cleanctl.score.joint:Joint",
        "probe": "cleanctl.score.probe:Probe",
        "detector": "cleanctl.score.detector:Detector",
        "dynamics": "cleanctl.score.dynamics:Dynamics",
        "conflict": "cleanctl.score.conflict:Conflict",
    },
)
METHODS = Registry(
    "training method",
    "cleanctl.methods",
    {
        "mixfix": "cleanctl.train.methods.mixfix:MixFix",
        "cross-entropy": "cleanctl.train.methods.cross_entropy:CrossEntropy",
        "mixup": "cleanctl.train.methods.cross_entropy:Mixup",
        "co-training": "cleanctl.train.methods.co_training:CoTraining",
        "dividemix": "cleanctl.train.methods.dividemix:DivideMix",
        "sce": "cleanctl.train.methods.sce:SymmetricCrossEntropy",
        "elr": "cleanctl.train.methods.elr:EarlyLearning",
        "small-loss": "cleanctl.train.methods.small_loss:SmallLoss",
        "gmm": "cleanctl.train.methods.loss_mixture:LossMixture",
        "finetune": "cleanctl.train.methods.finetune:Finetune",
    },
)
DATASETS = Registry(
    "dataset",
    "cleanctl.datasets",
    {
        "cifar10": "cleanctl.datasets.published.cifar:Cifar10",
        "cifar100": "cleanctl.datasets.published.cifar:Cifar100",
        "mnist": "cleanctl.datasets.published.mnist:Mnist",
        "animal10n": "cleanctl.datasets.published.animal10n:Animal10N",
        "clothing1m": "cleanctl.datasets.published.clothing1m:Clothing1M",
        "cub-200-2011": "cleanctl.datasets.published.cub:Cub",
        "mini-webvision": "cleanctl.datasets.published.webvision:MiniWebVision",
        "red-mini-imagenet": "cleanctl.datasets.published.red_mini_imagenet:RedMiniImageNet",
        "stanford-cars": "cleanctl.datasets.published.stanford_cars:StanfordCars",
        "tiny-imagenet": "cleanctl.datasets.published.tiny_imagenet:TinyImageNet",
        "webvision": "cleanctl.datasets.published.webvision:WebVision",
        "webdataset": "cleanctl.datasets.webdataset:WebDataset",
        "label-table": "cleanctl.datasets.table_dataset:TableDataset",
        "folders": "cleanctl.datasets.folder_dataset:FolderDataset",  # the last resort of recognition
    },
)
EXPORTERS = Registry(
    "table format",
    "cleanctl.exporters",
    {
        "parquet": "cleanctl.export.parquet:ParquetExporter",
        "csv": "cleanctl.export.csv:CsvExporter",
        "json": "cleanctl.export.json:JsonExporter",
    },
)
TARGETS = Registry(
    "export target",
    "cleanctl.targets",
    {
        "parquet": "cleanctl.export.targets.tables:ParquetTarget",
        "csv": "cleanctl.export.targets.tables:CsvTarget",
        "list": "cleanctl.export.targets.lists:ImageList",
        "manifest": "cleanctl.export.targets.lists:Manifest",
        "links": "cleanctl.export.targets.folders:Links",
        "copies": "cleanctl.export.targets.folders:Copies",
        "huggingface": "cleanctl.export.targets.hugging_face:HuggingFace",
        "fiftyone": "cleanctl.export.targets.fiftyone:FiftyOne",
        "cleanlab": "cleanctl.export.targets.cleanlab:Cleanlab",
        "webdataset": "cleanctl.export.targets.webdataset:WebDatasetTars",
        "coco": "cleanctl.export.targets.coco:Coco",
        "transition": "cleanctl.export.targets.transition:TransitionMatrix",
    },
)
