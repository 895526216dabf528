"""Ceilings of the device, and the kernels and the encoder held against them.

copy        bytes read and written by a copy within the device's memory; `upload`: from pinned host memory
gemm fp16   multiplications and additions of a square product in half precision; `gemm tf32`: of float32 in tf32
exp fp64    exponentials of float64 that lie in the device's memory

The zero-shot kernel is held against `gemm tf32`: it multiplies 16-bit images with the text's two halves, which is twice
the operations at twice the rate. The mixtures are held against `exp fp64` (an iteration needs one for each value),
pixels against `copy`, the encoder against `gemm fp16` by the operations of its products.
"""

from __future__ import annotations

import itertools
from functools import partial
from typing import Any

import numpy as np
import torch

from bench.embed import random_model
from bench.gpu.measure import Bench, in_turn
from cleanctl.clip.encoder import Encoder, load_encoder
from cleanctl.clip.models import resolve_model
from cleanctl.clip.workers import InferenceWorkers
from cleanctl.progress import SILENT
from cleanctl.runtime import choose_precision
from cleanctl.score.solvers import coarse_products

DIM = 512


def ceilings(bench: Bench, seconds: float) -> None:
    device, sizes, each = bench.device, bench.sizes, seconds / 5
    source, target = (torch.empty(sizes.copied // 2, dtype=torch.uint8, device=device) for _ in range(2))
    timing = in_turn([lambda: target.copy_(source)] * sizes.turns, seconds=each)
    bench.ceiling("copy", timing, sizes.copied, "bytes")
    host = torch.empty(sizes.copied // 4, dtype=torch.uint8, pin_memory=device == "cuda")
    there = target[: len(host)]
    timing = in_turn([lambda: there.copy_(host, non_blocking=True)] * sizes.turns, seconds=each)
    bench.ceiling("upload", timing, len(host), "bytes")
    for name, dtype in (("gemm fp16", torch.float16), ("gemm tf32", torch.float32)):
        a, b = (torch.randn(sizes.gemm, sizes.gemm, device=device).to(dtype) for _ in range(2))
        out = torch.empty_like(a)
        with coarse_products():
            timing = in_turn([lambda a=a, b=b, out=out: torch.mm(a, b, out=out)] * sizes.turns, seconds=each)
        bench.ceiling(name, timing, 2 * sizes.gemm**3, "operations")
    value = torch.rand(sizes.values, dtype=torch.float64, device=device)
    out = torch.empty_like(value)
    timing = in_turn([lambda: torch.exp(value, out=out)] * sizes.turns, seconds=each)
    bench.ceiling("exp fp64", timing, len(value), "exponentials")


def kernels(bench: Bench, seconds: float) -> None:
    generator = torch.Generator().manual_seed(0)
    _pixels(bench, seconds / 3, generator)
    _zeroshot(bench, seconds / 3, generator)
    _mixtures(bench, seconds / 3, generator)


def _pixels(bench: Bench, seconds: float, generator: torch.Generator) -> None:
    from cleanctl_kernels.pixels import pixels_to_input

    device, count, dtype = bench.device, bench.sizes.pixels, torch.float16
    shape = (count, 224, 224, 3)
    inputs = [
        torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator).to(device)
        for _ in range(bench.sizes.turns)
    ]
    mean, std = torch.full((3,), 0.45, device=device), torch.full((3,), 0.26, device=device)
    works = [lambda pixel=pixel: pixels_to_input(pixel, mean, std, dtype=dtype) for pixel in inputs]
    bench.row(
        "pixels_to_input", in_turn(works, seconds=seconds), 3 * inputs[0].numel(), "bytes", of="copy", images=count
    )


def _zeroshot(bench: Bench, seconds: float, generator: torch.Generator) -> None:
    from cleanctl_kernels import prompt_bank, zeroshot_stats
    from cleanctl_kernels.arrays import as_array

    sizes, device = bench.sizes, bench.device

    def directions(count: int) -> np.ndarray:
        value = torch.randn(count, DIM, generator=generator)
        return (value / value.norm(dim=1, keepdim=True)).numpy()

    class_P = np.arange(sizes.prompts) * sizes.classes // sizes.prompts
    bank = prompt_bank(
        as_array(directions(sizes.prompts), device), class_P, num_classes=sizes.classes, temperature=0.01
    )
    images = [as_array(directions(sizes.rows).astype(np.float16), device) for _ in range(sizes.turns)]
    label = as_array(np.arange(sizes.rows) % sizes.classes, device)
    timing = in_turn([lambda image=image: zeroshot_stats(image, label, bank) for image in images], seconds=seconds)
    work = 2 * sizes.rows * sizes.prompts * DIM
    bench.row("zeroshot_stats", timing, work, "operations", of="gemm tf32", rows=sizes.rows, prompts=sizes.prompts)


def _mixtures(bench: Bench, seconds: float, generator: torch.Generator) -> None:
    from cleanctl_kernels import Ragged, mixture_em
    from cleanctl_kernels.arrays import as_array, to_numpy

    sizes = bench.sizes
    each = sizes.values // sizes.classes
    offset = as_array(np.arange(sizes.classes + 1) * each, bench.device)
    works, iterations = [], 0
    for _ in range(sizes.turns):
        value = torch.randn(sizes.classes * each, generator=generator, dtype=torch.float64) * 0.1
        value += torch.where(torch.rand(len(value), generator=generator) < 0.7, 0.8, 0.3)
        ragged = Ragged(as_array(value.numpy(), bench.device), offset)
        iterations += int(to_numpy(mixture_em(ragged).iterations).sum())
        works.append(lambda ragged=ragged: mixture_em(ragged))
    passes = each * iterations / sizes.turns
    timing = in_turn(works, seconds=seconds)
    bench.row("mixture_em", timing, passes, "exponentials", of="exp fp64", values=sizes.classes * each)


def encoder(bench: Bench, seconds: float) -> None:
    """The workers on pixels that are ready: staging, upload, network, and the embeddings' way back."""
    told: list[str] = []
    made = open_encoder(bench)
    made.progress = Notes(told)
    operations = operations_an_image(made)
    ceiling = bench.ceilings["gemm fp16"] / operations
    size, sizes = made.info.pixels.size, bench.sizes
    pixels = np.random.default_rng(0).integers(0, 256, (max(sizes.batches), size, size, 3), dtype=np.uint8)
    for batch, graph in itertools.product(sizes.batches, (False, True)):
        with made.workers(graph=graph) as workers:
            work = partial(_encode, workers, pixels, batch, sizes.encoded)
            timing = in_turn([work], seconds=seconds / 4)
        what = f"encoder {sizes.model}, batches of {batch}, {'graph' if graph else 'eager'}"
        more = {"of": "gemm fp16", "ceiling": ceiling, "precision": made.info.precision}
        bench.row(what, timing, sizes.encoded, "images", **more, notes=list(told))
        told.clear()


def open_encoder(bench: Bench) -> Encoder:
    """Random weights, in the precision that `embed` takes on this device."""
    folder = bench.home / "model"
    source = resolve_model(f"local-dir:{folder if folder.exists() else random_model(bench.sizes.model, folder)}", None)
    return load_encoder(source, device=bench.device, precision=choose_precision("auto", bench.device).value)


class Notes:
    """A Progress that keeps what is noted, such as why the network is not replayed."""

    track, warn = SILENT.track, SILENT.warn

    def __init__(self, told: list[str]) -> None:
        self.note = told.append


def _encode(workers: InferenceWorkers, pixels: np.ndarray, batch: int, count: int) -> None:
    pending: list[Any] = []
    for start in range(0, count, batch):
        pending.append(workers.submit(pixels[: min(batch, count - start)]))
        if len(pending) > workers.ahead:
            pending.pop(0).result()
    for one in pending:
        one.result()


def operations_an_image(encoder: Encoder) -> int:
    """Multiplications and additions of the products of one image's forward pass."""
    from torch.utils.flop_counter import FlopCounterMode

    size = encoder.info.pixels.size
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # whose one operation is not counted
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            encoder.embed(torch.zeros(1, size, size, 3, dtype=torch.uint8, device=encoder.device))
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    return int(counter.get_total_flops())
