"""One frozen, keyword-only config per stage: checked once at the door, written down with the result.

Ranges are checked in `__post_init__` and a violation is a UsageError that names the option and the value.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cleanctl.errors import UsageError
from cleanctl.records import Share

LOADERS = ("auto", "ffcv", "torch", "nvjpeg")


def as_json(config: Any) -> dict[str, Any]:
    """A config as plain JSON values, for provenance."""
    return {key: str(value) if isinstance(value, Path) else value for key, value in asdict(config).items()}


def one_of(option: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise UsageError(f"{option} is {value!r}.", do=f"Use one of: {', '.join(choices)}.")


def within(option: str, value: float, low: float, high: float) -> None:
    """Closed range; NaN is outside."""
    if not low <= value <= high:
        raise UsageError(f"{option} is {value}.", do=f"Give a value from {low:g} to {high:g}.")


def at_least(option: str, value: float, low: float) -> None:
    if not value >= low:
        raise UsageError(f"{option} is {value}.", do=f"Give a value of {low:g} or more.")


@dataclass(frozen=True)
class FailureBound:
    """How many images may fail: a count, or a share of those tried."""

    count: int | None
    share: float = 0.0

    def __str__(self) -> str:
        return f"{100 * self.share:g}%" if self.count is None else str(self.count)

    @classmethod
    def parse(cls, text: str) -> FailureBound:
        """`100` or `5%`; raises UsageError."""
        number, percent, rest = text.strip().partition("%")
        try:
            if percent and not rest and 0.0 <= (share := float(number) / 100) <= 1.0:
                return cls(None, share)
            if not percent and (count := int(number)) >= 0:
                return cls(count)
        except ValueError:
            pass  # said below
        raise UsageError(
            f"--max-failures is {text!r}.", do="Give a number of images, e.g. 100, or a percentage, e.g. 5%."
        )


def parse_share(text: str) -> Share:
    """`0/4` … `3/4`; raises UsageError."""
    index, _, count = text.partition("/")
    if index.isdecimal() and count.isdecimal() and int(index) < int(count):
        return Share(int(index), int(count))
    last = f" … {int(count) - 1}/{count}" if count.isdecimal() and int(count) > 1 else " … 3/4"
    raise UsageError(
        f"--shard is {text!r}.",
        do=f"Give I/N, the I-th of N processes counted from 0: 0/{count if count.isdecimal() else 4}{last}.",
    )


@dataclass(frozen=True, kw_only=True)
class EmbedConfig:
    source: Path | str  # a folder, a tar, or the URL of one
    dataset: str | None = None
    splits: tuple[str, ...] = ()
    labels: Path | str | None = None
    label_column: str = "label"
    truth_column: str | None = None
    classes: Path | str | None = None
    noise: str | None = None
    seed: int = 0
    model: str = "ViT-B-32-quickgelu"
    pretrained: str | None = None
    prompts: str = "features"
    loader: str = "auto"
    device: str = "auto"
    precision: str = "auto"
    batch_size: int = 256
    workers: int | None = None
    download: bool = False
    retry_failures: bool = False
    max_failures: str | None = None  # a count or a percentage
    shard: str | None = None  # I/N
    finish: bool = False
    devices: tuple[str, ...] = ()
    replace: bool = False

    @property
    def share(self) -> Share | None:
        return None if self.shard is None else parse_share(self.shard)

    @property
    def failure_bound(self) -> FailureBound | None:
        return None if self.max_failures is None else FailureBound.parse(self.max_failures)

    def __post_init__(self) -> None:
        one_of("--loader", self.loader, LOADERS)
        one_of("--device", self.device, ("auto", "cuda", "cpu"))
        one_of("--precision", self.precision, ("auto", "fp16", "bf16", "fp32"))
        at_least("--batch-size", self.batch_size, 1)
        if self.workers is not None:
            at_least("--workers", self.workers, 0)
        _ = self.share, self.failure_bound  # refused now rather than after the images were listed
        self._refuse_contradictions()

    def _refuse_contradictions(self) -> None:
        ways = [option for option, on in self._ways() if on]
        if len(ways) > 1:
            raise UsageError(f"{' and '.join(ways)} were given together.", do="Give one of them.")
        if ways and self.replace:
            raise UsageError(
                f"--replace was given with {ways[0]}.",
                so="Each process would start the store anew.",
                do="Remove the store first, or choose another with --store.",
            )
        wrong = next((name for name in self.devices if name != "cpu" and not name.isdecimal()), None)
        if wrong is not None:
            raise UsageError(f"--devices holds {wrong!r}.", do="Give CUDA devices by number, e.g. 0,1,2,3, or cpu,cpu.")

    def _ways(self) -> tuple[tuple[str, bool], ...]:
        return (("--shard", self.shard is not None), ("--finish", self.finish), ("--devices", bool(self.devices)))


@dataclass(frozen=True, kw_only=True)
class ImportConfig:
    image_embeddings: Path
    text_embeddings: Path | None = None
    text_classes: Path | None = None
    labels: Path
    classes: Path | None = None
    keys: Path | None = None
    truth: Path | None = None
    split: str = "train"
    replace: bool = False


@dataclass(frozen=True, kw_only=True)
class SelectConfig:
    strategy: str = "intersection"
    name: str | None = None
    split: str = "train"
    theta_gmm: float = 0.5
    theta_consistency: float = 0.8
    theta_similarity: float = 0.25
    temperature: float = 0.07
    prompt_pooling: str = "sum"
    crossfit: int = 0
    logistic_solver: str = "auto"
    neighbors: int = 200
    knn_index: str = "exact"
    knn_probes: int = 64  # IVF cells visited for each image
    mixture_posterior: str = "fitted"
    fallback: str = "best"
    compat: str | None = None
    seed: int = 0
    device: str = "auto"
    partial: bool = False

    def __post_init__(self) -> None:
        within("--theta-gmm", self.theta_gmm, 0.0, 1.0)
        within("--theta-consistency", self.theta_consistency, 0.0, 1.0)
        within("--theta-similarity", self.theta_similarity, -1.0, 1.0)
        if not 0.0 < self.temperature < float("inf"):
            raise UsageError(f"--temperature is {self.temperature}.", do="Give a positive number, e.g. 0.07.")
        one_of("--prompt-pooling", self.prompt_pooling, ("sum", "mean"))
        one_of("--fallback", self.fallback, ("best", "none", "lowest"))
        at_least("--neighbors", self.neighbors, 1)
        one_of("--logistic-solver", self.logistic_solver, ("auto", "lbfgs", "cuml"))
        one_of("--knn-index", self.knn_index, ("exact", "ivf"))
        at_least("--knn-probes", self.knn_probes, 1)
        one_of("--mixture-posterior", self.mixture_posterior, ("fitted", "monotone"))
        if self.crossfit < 0 or self.crossfit == 1:
            raise UsageError(f"--crossfit is {self.crossfit}.", do="Give 0 (off) or a number of folds, 2 or more.")
        if self.compat is not None:
            one_of("--compat", self.compat, ("paper-code",))
            self._refuse_departures()

    def _refuse_departures(self) -> None:
        """Options of which the published code knows nothing."""
        given = {"--mixture-posterior monotone": self.mixture_posterior != "fitted", "--knn-index ivf": self.probes > 0}
        if wrong := [option for option, on in given.items() if on]:
            raise UsageError(
                f"{' and '.join(wrong)} was given with --compat {self.compat}.",
                so="The published code has no such thing.",
                do="Leave one of them out.",
            )

    @property
    def probes(self) -> int:
        """Cells that the kNN search visits; 0 is exact."""
        return self.knn_probes if self.knn_index == "ivf" else 0

    def score_parameters(self, scorer: str) -> dict[str, Any]:
        """What a stored score of this scorer depends on, besides the store itself."""
        parameters: dict[str, Any] = {}
        if scorer == "zeroshot":
            parameters = {"temperature": self.temperature, "pooling": self.prompt_pooling}
        elif scorer == "logistic" and self.crossfit:
            parameters = {"crossfit": self.crossfit, "seed": self.seed}
        elif scorer == "knn":
            parameters = {"neighbors": self.neighbors}
            if self.probes:
                parameters |= {"index": self.knn_index, "probes": self.probes}
        if self.compat:
            parameters |= {"compat": self.compat, "seed": self.seed}
        return parameters

    def score_name(self, scorer: str) -> str:
        """The name under which that score lies in the store, e.g. `zeroshot-temperature=0.07-pooling=sum`."""
        return "-".join([scorer, *(f"{key}={value}" for key, value in self.score_parameters(scorer).items())])


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """None means: as the recipe says."""

    selection: str | None = None  # None: the newest; "all": every readable sample
    method: str = "mixfix"
    recipe: str | None = None
    split: str = "train"
    name: str | None = None
    network: str | None = None
    image_size: int | None = None
    epochs: int | None = None
    batch_size: int | None = None
    learning_rate: float | None = None
    theta_absorb: float | None = None
    theta_relabel: float | None = None
    absorb: bool | None = None  # off switches: a threshold of 1 is not one
    relabel: bool | None = None
    relabel_scope: str | None = None
    mixup_beta: float | None = None
    network_weights: str | None = None  # a file, "download" or "none"
    cache: str = "auto"  # where the images of the set are kept between epochs
    loader: str = "auto"
    device: str = "auto"
    precision: str = "auto"
    workers: int | None = None
    seed: int = 3047
    resume: bool = True

    def __post_init__(self) -> None:
        one_of("--method", self.method, ("mixfix", "cross-entropy"))
        one_of("--loader", self.loader, LOADERS)
        one_of("--device", self.device, ("auto", "cuda", "cpu"))
        one_of("--precision", self.precision, ("auto", "fp16", "bf16", "fp32"))
        one_of("--cache", self.cache, ("auto", "gpu", "ram", "none"))
        if self.relabel_scope is not None:
            one_of("--relabel-scope", self.relabel_scope, ("all", "unselected"))
        for option, whole in (("--epochs", self.epochs), ("--batch-size", self.batch_size)):
            if whole is not None:
                at_least(option, whole, 1)
        if self.image_size is not None:
            at_least("--image-size", self.image_size, 8)
        for option, share in (("--theta-absorb", self.theta_absorb), ("--theta-relabel", self.theta_relabel)):
            if share is not None:
                within(option, share, 0.0, 1.0)
        if self.learning_rate is not None and not 0.0 < self.learning_rate < float("inf"):
            raise UsageError(f"--lr is {self.learning_rate}.", do="Give a positive number, e.g. 0.02.")
        if self.mixup_beta is not None:
            within("--mixup-beta", self.mixup_beta, 0.0, 1e6)


@dataclass(frozen=True, kw_only=True)
class EvalConfig:
    splits: tuple[str, ...] = ()
    selection: str | None = None
    run: str | None = None
    loader: str = "auto"
    device: str = "auto"
    batch_size: int = 512
    workers: int | None = None

    def __post_init__(self) -> None:
        at_least("--batch-size", self.batch_size, 1)
