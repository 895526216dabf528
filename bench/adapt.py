"""What a step of `adapt` costs for each way to tune an image tower, in time and memory.

    python -m bench.adapt [--model ViT-B-16] [--tunes vpt-deep,lora,…] [--batch 64] [--classes 100] [--runs 5]
                          [--device auto] [--precision auto] [--recompute] [--out FILE]

step   the whole step: crops of held bytes, tower, both contexts through the text tower, losses, backward, SGD
tower  forward and backward of the same tuned tower alone, on ready tensors
plain  forward and backward of the untuned tower with a gradient for every weight: the plain rate

`share` is step's rate as a share of plain's; above 1 where fewer gradients are needed than the plain pass computes.
`loss` is what a step takes beyond its own tower, as a share of the step. memory: on a GPU the peak that a step
allocates beyond the model; on a CPU what the first step's peak lies
above the memory before it. Weights are random: time does
not depend on them. Each way runs in a process of its own, its three sides in turn.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from torch import Tensor, nn

from bench.harness import report, side_by_side
from cleanctl.adapt.contexts import DualContexts, TextTower
from cleanctl.adapt.image_features import ImageFeatures
from cleanctl.adapt.preset import Preset
from cleanctl.adapt.trainer import Labels, State, Trainer
from cleanctl.adapt.views import View, Views
from cleanctl.clip.provenance import EncoderInfo
from cleanctl.clip.tune.tower import tune_tower
from cleanctl.config.tune import TUNES, parse_tune
from cleanctl.records import PixelSpec
from cleanctl.runtime import choose_device, choose_precision, torch_dtype
from cleanctl.train.pixels import HeldPixels

MIB = 2**20


def measure(tune: str, options: argparse.Namespace) -> dict[str, Any]:
    device = choose_device(options.device).value
    precision = "bf16" if device == "cuda" and options.precision == "auto" else options.precision
    precision = choose_precision(precision, device).value
    torch.manual_seed(0)
    model = open_clip.create_model(options.model, load_weights=False, device=device).eval().requires_grad_(False)
    size = open_clip.get_model_config(options.model)["vision_cfg"]["image_size"]
    plain_visual = deepcopy(model.visual)
    tower = tune_tower(model.visual, parse_tune(tune))
    if options.recompute:
        tower.recompute()
    trainer = _trainer(model, tower, options, device=device, precision=precision, size=size)
    state = State()

    def step() -> None:
        for position_B, image_BD in trainer.features.batches(0, options.batch):
            trainer._step(state, position_B, image_BD)

    memory = _memory_of(step, device)
    ready = torch.randn(options.batch, 3, size, size, device=device)
    plain_visual.requires_grad_(True)
    sides: dict[str, Callable[[], None]] = {
        "step": step,
        "tower": lambda: _forward_backward(tower, ready, device, precision),
        "plain": lambda: _forward_backward(plain_visual, ready, device, precision),
    }
    timings = side_by_side(sides, runs=options.runs)
    return {
        "tune": tune,
        "trained": tower.count(),
        "n": options.runs,
        "step img/s": timings["step"].rate(options.batch),
        "tower img/s": timings["tower"].rate(options.batch),
        "plain img/s": timings["plain"].rate(options.batch),
        "share": timings["plain"].median / timings["step"].median,
        "loss": 1 - timings["tower"].median / timings["step"].median,
        "q1_s": timings["step"].low,
        "q3_s": timings["step"].high,
        "MiB": round(memory / MIB),
    }


def _trainer(
    model: Any, tower: nn.Module, options: argparse.Namespace, *, device: str, precision: str, size: int
) -> Trainer:
    rng = np.random.default_rng(0)
    pixel = torch.from_numpy(rng.integers(0, 256, (options.batch, size, size, 3), dtype=np.uint8)).to(device)
    info = EncoderInfo(
        model=options.model, pretrained=None, architecture="", weights_sha256="", pixels=PixelSpec(size=size),
        mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25), precision=precision, dim=0, packages={},
    )  # fmt: skip
    held = HeldPixels(pixel, np.ones(options.batch, bool), device)
    features = ImageFeatures(tower, held, Views(View(), info), seed=0, device=device, precision=precision)
    names = [f"class {number}" for number in range(options.classes)]
    text = DualContexts(TextTower(model, open_clip.get_tokenizer(options.model), names, tokens=16), seed=0).to(device)
    label_M = rng.integers(0, options.classes, options.batch)
    labels = Labels(row_M=np.arange(options.batch), label_M=label_M, truth_M=None, num_classes=options.classes)
    preset = Preset(name="bench", summary="", batch_size=options.batch)
    return Trainer(text, features, labels, preset, scale=100.0, seed=0, device=device)


def _forward_backward(tower: nn.Module, ready: Tensor, device: str, precision: str) -> None:
    cast: AbstractContextManager[Any] = nullcontext()
    if precision != "fp32":
        cast = torch.autocast(device, dtype=torch_dtype(precision))
    with cast:
        feature = tower(ready)
    feature.float().square().sum().backward()
    tower.zero_grad()


def _memory_of(step: Callable[[], None], device: str) -> int:
    """Bytes that the first step takes beyond what lay there before it."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        return torch.cuda.max_memory_allocated() - before
    before = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
    step()
    return _status("VmHWM") - before


def _status(key: str) -> int:
    """A line of this process's memory, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key)) * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="ViT-B-16")
    parser.add_argument("--tunes", default=",".join("partial:1" if name == "partial" else name for name in TUNES))
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--recompute", action="store_true")
    parser.add_argument("--note", default="")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    tunes = options.tunes.split(",")
    if options.alone:
        print(json.dumps(measure(tunes[0], options)))
        return
    rows = []
    for tune in tunes:
        words = [sys.executable, "-m", "bench.adapt", *sys.argv[1:], "--tunes", tune, "--alone"]
        done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
        rows.append(json.loads(done.stdout.splitlines()[-1]))
    about = {key: getattr(options, key) for key in ("model", "batch", "classes", "recompute", "note")}
    report("adapt", rows, out=options.out, **about)


if __name__ == "__main__":
    main()
