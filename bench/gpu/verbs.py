"""Whole paths of the verbs on one device: training steps, the scorers at a million rows, files to embeddings.

A path is held against the slowest of the things that it cannot do without, measured alone in the same run.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np

from bench.embed import link_photographs
from bench.geometry import CHUNK, Generator
from bench.gpu.kernels import DIM, open_encoder
from bench.gpu.measure import Bench, in_turn, once
from bench.harness import Timing, summarize
from cleanctl.config import SelectConfig
from cleanctl.errors import MissingPackageError
from cleanctl.images.loaders import LoaderRequest, SeededLoader, open_loader
from cleanctl.progress import SILENT
from cleanctl.records import Storage, TextEmbeddings
from cleanctl.runtime import choose_device, cpu_count


def train(bench: Bench, seconds: float) -> None:
    """MixFix steps in the precision of runs, against the same network's steps on ready tensors."""
    from bench.train import measure
    from cleanctl.train.recipe import load_recipe

    for name in bench.sizes.recipes:
        recipe = load_recipe(name)
        recipe = replace(recipe, batch_size=bench.sizes.training_batch or recipe.batch_size)
        found = measure(recipe, device=bench.device, images=bench.sizes.images, steps=bench.sizes.steps, runs=3)
        timing = summarize([bench.sizes.steps / found["steps/s"]])
        bench.row(
            f"train {name}, {recipe.network}, batches of {recipe.batch_size}",
            Timing(found["n"], timing.median, found["q1_s"], found["q3_s"]),
            bench.sizes.steps * recipe.batch_size,
            "images",
            of="forward, backward, update alone",
            ceiling=found["network img/s"],
            precision=found["precision"],
            **{"augment images/s": found["augment img/s"], "predict images/s": found["predict img/s"]},
        )


def select(bench: Bench, seconds: float) -> None:
    """zeroshot, logistic and kNN on embeddings in main memory; kNN for as many rows as the seconds allow."""
    from cleanctl.score.blocks import ArrayBlocks
    from cleanctl.score.compute import open_scorer
    from cleanctl.score.scorer import ALONE, Rows

    sizes = bench.sizes
    count, classes = sizes.selected, sizes.classes
    generator = Generator(dim=DIM, classes=classes, prompts=sizes.prompts)
    image_ND, label_N = np.empty((count, DIM), np.float16), np.empty(count, np.int64)
    for start, (image, label, _) in zip(range(0, count, CHUNK), generator.chunks(count)):
        image_ND[start : start + len(image)], label_N[start : start + len(label)] = image, label
    text = TextEmbeddings(embedding_PD=generator.text_PD, class_P=generator.class_P, prompts=("",) * sizes.prompts)
    device = choose_device(bench.device)

    def rows_of(part: int) -> Rows:
        blocks = ArrayBlocks(image_ND=image_ND[:part])
        return Rows(blocks=blocks, label_N=label_N[:part], num_classes=classes, text=text, device=device)

    for part in (min(count, 4 * classes), count):  # the first compiles
        rows, scorer = rows_of(part), open_scorer("zeroshot", SelectConfig(temperature=0.01))
        timing = once(lambda scorer=scorer, rows=rows: scorer.posterior(scorer.fit(rows, ALONE), rows))
    ceiling = bench.ceilings["gemm tf32"] / (2 * sizes.prompts * DIM)
    bench.row(f"zeroshot, {count:,} rows", timing, count, "rows", of="gemm tf32", ceiling=ceiling)

    for part in (min(count, 4 * classes), count):
        rows, scorer, fitted = rows_of(part), open_scorer("logistic", SelectConfig()), []
        timing = once(lambda scorer=scorer, rows=rows, fitted=fitted: fitted.append(scorer.fit(rows, ALONE)))
    passes = sum(model.evaluations for model in fitted[0].models)
    work = 4.0 * count * DIM * classes * passes
    bench.row(
        f"logistic fit, {count:,} rows, {classes:,} classes", timing, work, "operations", of="gemm tf32", passes=passes
    )
    timing = once(lambda: scorer.posterior(fitted[0], rows))
    bench.row(f"logistic scores, {count:,} rows", timing, 2.0 * count * DIM * classes, "operations", of="gemm tf32")

    rows, scorer = rows_of(count), open_scorer("knn", SelectConfig())
    start = time.perf_counter()
    model = scorer.fit(rows, ALONE)
    parts = ((which.stop - which.start) for which, _ in scorer.score(model, rows))
    done, _ = _until(parts, seconds / 2)
    timing = summarize([time.perf_counter() - start])
    by = scorer.ran(model, rows)["by"]
    bench.row(f"knn, {count:,} rows", timing, 2.0 * done * count * DIM, "operations", of="gemm tf32", done=done, by=by)


def _until(parts: Iterable[int], seconds: float) -> tuple[int, float]:
    """What the parts add up to when all are done or the seconds are over, and how many seconds that took."""
    start, done = time.perf_counter(), 0
    for part in parts:
        done += part
        if time.perf_counter() - start > seconds:
            break
    return done, time.perf_counter() - start


def embed(bench: Bench, seconds: float) -> None:
    """FFCV against nvJPEG over the same files: loading alone, then into a store; each for a share of the seconds."""
    from cleanctl.config import EmbedConfig
    from cleanctl.datasets.source import open_source

    source = link_photographs(bench.home / "images", bench.sizes.drawn, bench.sizes.linked, 400)
    dataset = open_source(EmbedConfig(source=source, model=f"local-dir:{bench.home / 'model'}"))
    encoder = open_encoder(bench)
    batch = bench.sizes.batches[-1]
    alone = max((row["rate"] for row in bench.rows if row["what"].startswith("encoder")), default=None)
    for kind in ("ffcv", "nvjpeg"):
        start = time.perf_counter()
        loader = _open(bench, kind, dataset, encoder.info.pixels)
        if loader is None:
            continue
        if kind == "ffcv":
            count = len(dataset.splits[0])
            bench.row("packing for FFCV", summarize([time.perf_counter() - start]), count, "images")
        of, most = _one_core(bench, dataset, encoder, seconds) if kind == "ffcv" else _decoder(bench, dataset, seconds)
        timing, done = _loaded(loader, len(dataset.splits[0]), batch, seconds / 5)
        rate = bench.row(f"loading alone, {kind}", timing, done, "images", of=of, ceiling=most, batch=batch)
        _embed(bench, loader, dataset, encoder, batch, seconds / 5, min(rate, alone or rate))
        loader.close()


def _open(bench: Bench, kind: str, dataset: Any, spec: Any, workers: int | None = None) -> SeededLoader | None:
    """None where the loader's package is missing, which a line says. On a CPU nvJPEG's place is taken by its stand-in
    of the tests, so that all of its path but the decoder runs."""
    from cleanctl.images.nvjpeg_loader import NvjpegLoader

    files: Storage = dataset.files
    keys = dataset.splits[0].keys
    try:
        if kind == "nvjpeg" and bench.device == "cpu":
            import torchcodec  # noqa: F401

            return NvjpegLoader(files=files, keys=keys, spec=spec, device="cpu")
        request = LoaderRequest(
            files=files, keys=keys, spec=spec, beton=bench.home / "images.beton", workers=workers, on_device=True
        )
        return open_loader(request, kind)
    except (MissingPackageError, ImportError) as exc:
        bench.emit({"what": f"embed, {kind}", "skipped": str(exc)})
        return None


def _loaded(loader: SeededLoader, count: int, batch: int, seconds: float) -> tuple[Timing, int]:
    """The seconds, and how many images were loaded in them."""
    rows = np.arange(count)
    for one in loader.batches(rows[:batch], batch_size=batch):  # compiles
        assert one.ok_B.all(), one.reason
    done, took = _until((len(one.row_B) for one in loader.batches(rows, batch_size=batch)), seconds)
    return summarize([took]), done


def _one_core(bench: Bench, dataset: Any, encoder: Any, seconds: float) -> tuple[str, float]:
    """What FFCV could load if no core waited for another: a thread's images a second, times the cores."""
    loader = _open(bench, "ffcv", dataset, encoder.info.pixels, workers=1)
    assert loader is not None
    timing, done = _loaded(loader, len(dataset.splits[0]), bench.sizes.batches[0], seconds / 20)
    loader.close()
    return f"one thread, times {cpu_count()} cores", timing.rate(done) * cpu_count()


def _decoder(bench: Bench, dataset: Any, seconds: float) -> tuple[str, float]:
    """nvJPEG on files in memory, and nothing else."""
    from torchcodec.decoders import decode_jpeg

    keys = dataset.splits[0].keys[: bench.sizes.drawn]
    data = [content.data for content in dataset.files.read(keys)]
    timing = in_turn([lambda: decode_jpeg(data, mode="RGB", device=bench.device)], seconds=seconds / 20)
    return "decoding alone", timing.rate(len(data))


def _embed(
    bench: Bench, loader: SeededLoader, dataset: Any, encoder: Any, batch: int, seconds: float, ceiling: float
) -> None:
    from cleanctl.embed.pipeline import embed_rows
    from cleanctl.store import Store

    manifest = dataset.splits[0]
    now = dataset.files.stat(manifest.keys)
    store = Store.create(bench.home / f"{loader.name}.zarr", classes=dataset.classes, encoder={})
    with (
        store.write_split(manifest, dim=encoder.dim, fingerprints=now) as writer,
        SILENT.track("", total=None, unit="") as task,
    ):
        start = time.perf_counter()
        done = embed_rows(
            np.arange(len(manifest)),
            loader=loader,
            encoder=encoder,
            writer=writer,
            before=now,
            batch_size=batch,
            stop=lambda: time.perf_counter() - start > seconds,
            task=task,
        )
        took = time.perf_counter() - start
    of = "the slower of loading and encoding alone"
    bench.row(f"embed, {loader.name}", summarize([took]), done, "images", of=of, ceiling=ceiling, batch=batch)
