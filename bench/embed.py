"""How close `embed` comes to its limits: the encoder on ready tensors, and decoding without an encoder.

    python -m bench.embed                                     ViT-B-32 with random weights, drawn photographs
    python -m bench.embed --model tiny                        a network so small that decoding is the bottleneck
    python -m bench.embed --model local-dir:DIR --source DIR  a model and images of one's own
    options: --images N --drawn N --side PX --batch-size B --latency-ms MS --device D --runs R --out FILE

All works run in turn (A B A B …) in one process, same images, same precision. `embed` is loading, encoding and writing
to a fresh store, from an FFCV file that is packed already; packing and embedding, one after the other and in one pass,
and the whole verb from nothing, are rows of their own. `plain` is what one writes without cleanctl: open_clip, its
transform, a torch DataLoader, fp32, no store.
Prints a table and one JSON line: n, median and quartiles in seconds, images a second, share of two limits. `of the
slower` is the slower of decoding and encoding, each measured alone with the whole machine; a GPU can reach it. On a
processor both want the same cores, and `of the cores` is the time of both added up, which no overlap can beat.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from bench.harness import Timing, report, side_by_side, summarize
from cleanctl.clip.encoder import Encoder, load_encoder
from cleanctl.clip.models import resolve_model
from cleanctl.config import EmbedConfig
from cleanctl.datasets.source import open_source
from cleanctl.embed.embed import embed_dataset
from cleanctl.embed.pipeline import batch_size_for, embed_rows
from cleanctl.errors import MissingPackageError, UsageError
from cleanctl.images.loaders import LoaderRequest, SeededLoader, open_loader
from cleanctl.images.packed.pack import limit_for, pack
from cleanctl.progress import SILENT
from cleanctl.records import Dataset, FileContent, Storage
from cleanctl.runtime import choose_device, choose_precision, cpu_count
from cleanctl.store import Store

TINY = {
    "embed_dim": 64,
    "vision_cfg": {"image_size": 224, "layers": 2, "width": 64, "patch_size": 32},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 1},
}


def main() -> None:
    options = _options()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        source = options.source or link_photographs(home / "images", options.drawn, options.images, options.side)
        model = options.model
        if options.random_weights or not model.startswith("local-dir:"):
            model = f"local-dir:{random_model(model, home / 'model')}"
        config = EmbedConfig(
            source=source, model=model, batch_size=options.batch_size, prompts="photo", device=options.device
        )
        bench = Bench(home, config, options.images, options.latency_ms)
        rows = bench.table(side_by_side(bench.works(), runs=options.runs), bench.once())
        about = {
            "model": options.model,
            "images": bench.count,
            "side": options.side,
            "on": bench.encoder.device,
            "batch": bench.batch_size,
        }
        report("embed", rows, out=options.out, precision=bench.encoder.info.precision, **about)


class Bench:
    """One model and one split of images, and everything that is timed on them."""

    def __init__(self, home: Path, config: EmbedConfig, most: int, latency_ms: float = 0) -> None:
        self.home = home
        self.latency_ms = latency_ms
        self.config = config
        device = choose_device(config.device).value
        precision = choose_precision("auto", device).value
        source = resolve_model(config.model, None)
        self.encoder: Encoder = load_encoder(source, device=device, precision=precision)
        self.dataset: Dataset = open_source(config)
        self.manifest = self.dataset.splits[0]
        self.count = min(most, len(self.manifest))
        size = source.pixels.size
        self.batch_size = batch_size_for(config.batch_size, size=size, device=device)
        self.rows = np.arange(self.count, dtype=np.int64)
        self.pixels = np.random.default_rng(0).integers(0, 256, (self.batch_size, size, size, 3), dtype=np.uint8)
        self.now = self.dataset.files.stat(self.manifest.keys)
        self._number = itertools.count()
        self.loaders = {"torch": self._open("torch")}
        for name in ("ffcv", "nvjpeg"):
            with contextlib.suppress(MissingPackageError, UsageError):  # nvjpeg: no GPU
                self.loaders[name] = self._open(name)

    def works(self) -> dict[str, Callable[[], Any]]:
        works: dict[str, Callable[[], Any]] = {
            "encoder alone": self.encoder_alone,
            "encoder, torch's own threads": self.encoder_in_one_thread,
        }
        for name in self.loaders:
            works[f"decode alone, {name}"] = lambda name=name: self.decode_alone(name)
            works[f"embed, {name}"] = lambda name=name: self.embed(name)
        if "ffcv" in self.loaders:
            late = f", {self.latency_ms:g} ms a file" if self.latency_ms else ""
            works[f"pack, then embed{late}"] = lambda: self.pack_and_embed(one_pass=False)
            works[f"pack and embed in one pass{late}"] = lambda: self.pack_and_embed(one_pass=True)
        works["plain open_clip and DataLoader"] = self.plain
        return works

    def once(self) -> dict[str, float]:
        """Seconds of what would take too long to repeat."""
        start = time.perf_counter()
        limit = limit_for(self.encoder.info.pixels.size)
        pack(files=self.dataset.files, keys=self.manifest.keys, path=self.home / "again.beton", limit=limit)
        packed = time.perf_counter()
        dataset = replace(self.dataset, splits=(self.manifest,))
        embed_dataset(dataset, self.home / "verb.zarr", self.config)
        images = f"{len(self.manifest)} images"
        return {f"packing {images}": packed - start, f"whole verb, {images}": time.perf_counter() - packed}

    # ---- what is timed

    def encoder_alone(self) -> None:
        with self.encoder.workers() as workers:
            pending = []
            for start in range(0, self.count, self.batch_size):
                pending.append(workers.submit(self.pixels[: min(self.batch_size, self.count - start)]))
                if len(pending) > workers.ahead:
                    pending.pop(0).result()
            for one in pending:
                one.result()

    def encoder_in_one_thread(self) -> None:
        for start in range(0, self.count, self.batch_size):
            self.encoder.encode_images(self.pixels[: min(self.batch_size, self.count - start)])

    def decode_alone(self, loader: str) -> None:
        for batch in self.loaders[loader].batches(self.rows, batch_size=self.batch_size):
            assert batch.ok_B.all(), "benchmark images must be readable"

    def embed(self, name: str) -> None:
        self._embed_with(self.loaders[name])

    def _embed_with(self, loader: SeededLoader) -> None:
        path = self.home / f"{next(self._number)}.zarr"
        store = Store.create(path, classes=self.dataset.classes, encoder={})
        with (
            store.write_split(self.manifest, dim=self.encoder.dim, fingerprints=self.now) as writer,
            SILENT.track("", total=None, unit="") as task,
        ):
            embed_rows(
                self.rows,
                loader=loader,
                encoder=self.encoder,
                writer=writer,
                before=self.now,
                batch_size=self.batch_size,
                stop=lambda: False,
                task=task,
            )

    def pack_and_embed(self, *, one_pass: bool) -> None:
        request = LoaderRequest(
            files=_Slow(self.dataset.files, self.latency_ms) if self.latency_ms else self.dataset.files,
            keys=self.manifest.keys[: self.count],
            spec=self.encoder.info.pixels,
            beton=self.home / f"{next(self._number)}.beton",
            first_row=0 if one_pass else None,
        )
        loader = open_loader(request, "ffcv")
        self._embed_with(loader)
        loader.close()

    def plain(self) -> None:
        import open_clip
        import torch
        from torch.utils.data import DataLoader

        if not hasattr(self, "_plain"):
            model, _, transform = open_clip.create_model_and_transforms(self.config.model)
            self._plain = model.eval().to(self.encoder.device), transform
        model, transform = self._plain
        files = [f"{self.dataset.files.location}/{key}" for key in self.manifest.keys[: self.count]]
        loader = DataLoader(_Files(files, transform), batch_size=self.batch_size, num_workers=cpu_count())
        with torch.inference_mode():
            for image in loader:
                model.encode_image(image.to(self.encoder.device), normalize=True).cpu().numpy()

    # ---- the table

    def table(self, timings: dict[str, Timing], once: dict[str, float]) -> list[dict[str, Any]]:
        encoder = timings["encoder alone"].median
        best = min((name for name in timings if name.startswith("decode")), key=lambda name: timings[name].median)

        def row(name: str, timing: Timing, count: int) -> dict[str, Any]:
            own = name.replace("embed, ", "decode alone, ")
            decoder = timings[own if own in timings else best].median
            scale = count / self.count
            return _row(name, timing, count, max(encoder, decoder) * scale, (encoder + decoder) * scale)

        rows = [row(name, timing, self.count) for name, timing in timings.items()]
        return rows + [row(name, summarize([seconds]), len(self.manifest)) for name, seconds in once.items()]

    def _open(self, kind: str) -> SeededLoader:
        import torch

        threads = torch.get_num_threads()
        request = LoaderRequest(
            files=self.dataset.files,
            keys=self.manifest.keys,
            spec=self.encoder.info.pixels,
            beton=self.home / f"{kind}.beton",
        )
        loader = open_loader(request, kind)
        torch.set_num_threads(threads)  # importing FFCV sets it to 1
        return loader


class _Files:
    def __init__(self, files: list[str], transform: Callable[[Image.Image], Any]) -> None:
        self.files = files
        self.transform = transform

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, row: int) -> Any:
        return self.transform(Image.open(self.files[row]))


class _Slow:
    """Storage that answer late, each file by itself, as an object store does."""

    def __init__(self, files: Storage, latency_ms: float) -> None:
        self.location = files.location
        self.stat, self.head = files.stat, files.head
        self._files, self._seconds = files, latency_ms / 1e3

    def read(self, keys: Sequence[str]) -> Iterator[FileContent]:
        for content in self._files.read(keys):
            time.sleep(self._seconds)
            yield content


def _row(name: str, timing: Timing, count: int, slower: float, cores: float) -> dict[str, Any]:
    return {
        "what": name,
        "images/s": timing.rate(count),
        "of the slower": slower / timing.median,
        "of the cores": cores / timing.median,
        "n": timing.n,
        "median s": timing.median,
        "q1 s": timing.low,
        "q3 s": timing.high,
    }


def draw_photographs(root: Path, count: int, side: int) -> Path:
    """JPEGs with a photograph's falling spectrum and grain, near `side` pixels, in two class folders."""
    random = np.random.default_rng(0)
    for label in ("a", "b"):
        (root / label).mkdir(parents=True)
    for row in range(count):
        size = (int(side * random.uniform(0.8, 1.4)), int(side * random.uniform(0.8, 1.4)))
        pixels = np.zeros((size[1], size[0], 3), np.float32)
        for octave in range(1, 8):
            coarse = random.normal(size=(2**octave, 2**octave, 3)) * 90 / 1.6**octave
            for channel in range(3):
                layer = Image.fromarray(coarse[..., channel].astype(np.float32)).resize(size, Image.Resampling.BICUBIC)
                pixels[..., channel] += np.asarray(layer)
        Image.fromarray(np.clip(pixels + 120, 0, 255).astype(np.uint8)).save(
            root / "ab"[row % 2] / f"{row:06d}.jpg", quality=88
        )
    return root


def link_photographs(root: Path, drawn: int, count: int, side: int) -> Path:
    """`count` names for at most `drawn` photographs: drawing one costs far more than decoding it."""
    draw_photographs(root, min(drawn, count), side)
    files = sorted(root.rglob("*.jpg"))
    for number in range(len(files), count):
        file = files[number % len(files)]
        os.link(file, file.with_name(f"{number:06d}.jpg"))
    return root


def random_model(name: str, folder: Path) -> Path:
    """An architecture of open_clip with random weights as a `local-dir:`, so that no weights need be at hand."""
    import open_clip
    from safetensors.torch import save_model

    folder.mkdir()
    config = {"model_cfg": TINY if name == "tiny" else open_clip.get_model_config(name), "preprocess_cfg": {}}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    model = open_clip.create_model(f"local-dir:{folder}", load_weights=False, pretrained_text=False)
    save_model(model, str(folder / "open_clip_model.safetensors"))
    return folder


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="ViT-B-32", help="an open_clip architecture, tiny, or local-dir:DIR")
    parser.add_argument("--random-weights", action="store_true", help="implied by an architecture's name")
    parser.add_argument("--source", type=Path, help="a folder of images; default: drawn ones")
    parser.add_argument("--images", type=int, default=256, help="how many of them are timed; 32768 for a GPU")
    parser.add_argument("--drawn", type=int, default=256, help="the others are further names of these")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--side", type=int, default=400, help="of drawn images, in pixels")
    parser.add_argument(
        "--latency-ms", type=float, default=0, help="of each file, in the rows `one pass`, `two passes`"
    )
    parser.add_argument("--batch-size", type=int, default=EmbedConfig.batch_size)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--out", type=Path)
    return parser.parse_known_args()[0]  # `python -m bench` hands every suite the same options


if __name__ == "__main__":
    main()
