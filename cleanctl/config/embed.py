"""Options of `cleanctl embed`, and the small languages that some of them are written in."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from cleanctl.config.noise import Noise
from cleanctl.config.option import REQUIRED, Config, option
from cleanctl.config.shared import (
    Device,
    Engine,
    Loader,
    Precision,
    batch_size_option,
    device_option,
    engine_option,
    loader_option,
    precision_option,
    ray_address_option,
    ray_cores_option,
    refuse_without_ray,
    seed_option,
    splits_option,
    workers_option,
)
from cleanctl.errors import UsageError
from cleanctl.paths import is_url
from cleanctl.records import Shard
from cleanctl.registry import DATASETS


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


def parse_shard(text: str) -> Shard:
    """`0/4` … `3/4`; raises UsageError."""
    match = re.fullmatch(r"(\d{1,5})/(\d{1,5})", text)
    index, count = (int(number) for number in match.groups()) if match else (0, 0)
    if index < count:
        return Shard(index, count)
    most = count or 4
    raise UsageError(
        f"--shard is {text!r}.", do=f"Give I/N, the I-th of N processes counted from 0: 0/{most} … {most - 1}/{most}."
    )


def parse_devices(text: str) -> tuple[str, ...]:
    """`0,1` or `cpu,cpu`, a process each; raises UsageError."""
    names = tuple(name.strip() for name in text.split(","))
    numbers = [int(name) for name in names if re.fullmatch(r"\d{1,3}", name)]
    if len(numbers) + names.count("cpu") < len(names) or len(set(numbers)) < len(numbers):
        raise UsageError(
            f"--devices is {text!r}.", do="Give CUDA devices by number, each once, e.g. 0,1,2,3, or cpu,cpu."
        )
    return names


@dataclass(frozen=True, kw_only=True)
class EmbedConfig(Config):
    """`noise`, `max_failures`, `shard` and `devices` are also taken as the text that the command line takes."""

    source: Path | str = option(
        REQUIRED,
        "A folder of images, a sub-folder a class; of WebDataset tars; one tar; or the URL of one.",
        flag="SOURCE",
    )
    dataset: str | None = option(
        None, "The dataset's layout by name (default: recognised).", "Data", metavar="NAME", known=DATASETS
    )
    variant: str | None = option(
        None, "Which variant of a published dataset: 0.4 of red-mini-imagenet.", "Data", metavar="NAME"
    )
    splits: tuple[str, ...] = splits_option("A split to embed; may repeat (default: all found).", "Data")
    labels: Path | str | None = option(
        None,
        "CSV or Parquet: path relative to SOURCE (in tars: shard/name), label as number or name.",
        "Data",
        metavar="FILE",
    )
    label_column: str = option("label", "The label's column in --labels, or its field in the tars' .json.", "Data")
    truth_column: str | None = option(None, "The true label's column or field, if it is known.", "Data")
    classes: Path | str | None = option(None, "Class names in label order, a name a line.", "Data", metavar="FILE")
    noise: Noise | None = option(
        None,
        "Labels of train: symmetric:0.4 and other kinds, human:worse, csv:FILE (docs/datasets.md).",
        "Data",
        metavar="KIND:RATE",
        parse=Noise.parse,
    )
    noise_file: Path | str | None = option(
        None, "The label set of --noise: read if the file is there, else written to it.", "Data", metavar="FILE"
    )
    seed: int = seed_option(0, "The seed of --noise, and of a --variant that is drawn.", "Data")
    model: str = option("ViT-B-32-quickgelu", "An open_clip architecture, or local-dir:DIR.", "Model")
    pretrained: str | None = option(None, "The weights: an open_clip tag or a file (default: openai).", "Model")
    download: bool = option(False, "Fetch weights that are not on this disk.", "Model")
    prompts: str = option("features", "A prompt set by name, or a file of prompts by class.", "Model")
    loader: Loader = loader_option()
    device: Device = device_option()
    precision: Precision = precision_option()
    batch_size: int | None = batch_size_option(
        None, "Images encoded at a time (default: 1,024 on CUDA, 256 on a CPU).", "Run"
    )
    workers: int | None = workers_option()
    retry_failures: bool = option(False, "Try the images again that could not be read.", "Failures")
    max_failures: FailureBound | None = option(
        None, "End the run if more images fail.", "Failures", metavar="N|P%", parse=FailureBound.parse
    )
    shard: Shard | None = option(
        None,
        "Embed the I-th of N parts, the first is 0/N: one of N processes that fill one store.",
        "Many processes",
        metavar="I/N",
        parse=parse_shard,
    )
    finish: bool = option(False, "Check that all shards ended, and join them.", "Many processes")
    devices: tuple[str, ...] = option(
        (),
        "Embed on several CUDA devices of this machine at once.",
        "Many processes",
        metavar="0,1,…",
        parse=parse_devices,
    )
    engine: Engine = engine_option("local: this process; ray: the actors of a Ray cluster.")
    ray_address: str | None = ray_address_option()
    ray_cores: int | None = ray_cores_option()
    replace: bool = option(False, "Recreate a store made by another model.", "Run")

    def refuse_contradictions(self) -> None:
        self._refuse_noise_options()
        if self.devices:
            parse_devices(",".join(self.devices))
        given = {"--shard": self.shard is not None, "--finish": self.finish, "--devices": bool(self.devices)}
        ways = [option for option, on in given.items() if on]
        rivals = [*ways, *(["--engine ray"] if self.engine == "ray" else [])]
        if len(rivals) > 1:
            raise UsageError(f"{' and '.join(rivals)} were given together.", do="Give one of them.")
        of_ray = {"--ray-address": self.ray_address is not None, "--ray-cores": self.ray_cores is not None}
        refuse_without_ray(self.engine, of_ray)
        if ways and self.replace:
            raise UsageError(
                f"--replace was given with {ways[0]}.",
                so="Each process would recreate the store.",
                do="Remove the store first, or choose another with --store.",
            )

    def _refuse_noise_options(self) -> None:
        if self.noise is None:
            if self.noise_file is not None:
                raise UsageError(
                    "--noise-file was given without --noise.",
                    do="Add --noise KIND:RATE, or give --noise json:FILE to take the labels of the file as they are.",
                )
            return
        if self.noise_file is not None and self.noise.kind in ("csv", "json"):
            raise UsageError(f"--noise-file was given with --noise {self.noise}.", do="Name one file.")
        if self.noise_file is not None and is_url(self.noise_file):
            raise UsageError(f"--noise-file is {str(self.noise_file)!r}, a URL.", do="Name a file of this machine.")
        if self.seed and not self.noise.drawn and self.variant is None:
            raise UsageError(
                f"--seed was given with --noise {self.noise}.", so="Nothing is drawn.", do="Leave --seed out."
            )
