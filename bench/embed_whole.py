"""Embedding as whole processes: `cleanctl embed`, and beside it clip-retrieval's inference where it can be had.

    python -m bench.embed_whole                                  cleanctl alone, on N and 4 N drawn photographs
    python -m bench.embed_whole --clip-retrieval ENV/bin/clip-retrieval
    options: --model NAME --images N --side PX --out FILE

Both get the same JPEG files and the same weights (an architecture of open_clip with random ones), encode on what the
machine has, and write their embeddings to disk. Seconds are wall time from start to end; `images/s` leaves out what
each takes to start and to load the network (from its own clock: cleanctl's `--json`, clip-retrieval's `stats/`).
`peak MiB` is the proportional set size of the process and all its children, sampled ten times a second.
clip-retrieval wants an environment of its own (`pip install clip-retrieval 'setuptools<70'`, without `dataclasses`).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from bench.embed import draw_photographs, random_model
from bench.harness import report


def main() -> None:
    options = _options()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        model = random_model(options.model, home / "model")
        rows = []
        for count in (options.images, 4 * options.images):
            photographs = draw_photographs(home / f"images-{count}", count, options.side)
            for loader in ("ffcv", "torch"):
                rows.append(_ours(home, photographs, model, count, loader))
        if options.clip_retrieval:
            photographs = home / f"images-{options.images}"
            rows.append(_clip_retrieval(options, home, photographs, model))
        report("embed_whole", rows, out=options.out, model=options.model, side=options.side)


def _ours(home: Path, photographs: Path, model: Path, count: int, loader: str) -> dict[str, Any]:
    store = home / f"{count}-{loader}.zarr"
    command = [sys.executable, "-m", "cleanctl", "embed", str(photographs), "--model", f"local-dir:{model}"]
    command += ["--prompts", "photo", "--loader", loader, "--store", str(store), "--json"]
    seconds, peak, out = _run(command)
    (split,) = json.loads(out)["splits"]
    return _row(f"cleanctl, {loader}", count, split["images_per_second"], seconds, peak)


def _clip_retrieval(options: argparse.Namespace, home: Path, photographs: Path, model: Path) -> dict[str, Any]:
    import torch
    from safetensors.torch import load_file

    weights = home / "weights.pt"
    torch.save(load_file(model / "open_clip_model.safetensors"), weights)
    out = home / "clip-retrieval"
    command = [options.clip_retrieval, "inference", "--input_dataset", str(photographs), "--output_folder", str(out)]
    command += ["--clip_model", f"open_clip:{options.model}/{weights}", "--use_jit", "False", "--batch_size", "64"]
    command += ["--num_prepro_workers", "2", "--enable_text", "False", "--enable_wandb", "False"]
    seconds, peak, _ = _run([*command, "--output_partition_count", "1"])
    stats = [json.loads(file.read_text()) for file in sorted((out / "stats").glob("*.json"))]
    count = sum(one["sample_count"] for one in stats)
    rate = count / sum(one["total_duration"] for one in stats)
    return _row("clip-retrieval", count, rate, seconds, peak)


def _row(what: str, count: int, rate: float, seconds: float, peak: float) -> dict[str, Any]:
    return {"what": what, "images": count, "images/s": rate, "seconds": seconds, "peak MiB": peak}


def _run(command: list[str]) -> tuple[float, float, str]:
    """(wall seconds, peak memory of the process tree in MiB, stdout)."""
    import psutil

    started, peak = time.perf_counter(), 0.0
    with tempfile.TemporaryFile("w+") as told, subprocess.Popen(command, stdout=told, stderr=subprocess.PIPE) as child:
        process = psutil.Process(child.pid)
        while child.poll() is None:
            with suppress(psutil.Error):
                family = [process, *process.children(recursive=True)]
                peak = max(peak, sum(_pss(one) for one in family))
            time.sleep(0.1)
        seconds = time.perf_counter() - started
        if child.returncode:
            assert child.stderr is not None
            sys.exit(f"{command[0]} failed: {child.stderr.read().decode()[-2000:]}")
        told.seek(0)
        return seconds, peak / 2**20, told.read()


def _pss(process: Any) -> int:
    try:
        return int(process.memory_full_info().pss)
    except Exception:  # noqa: BLE001 - it ended between two looks
        return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="ViT-B-32", help="an architecture of open_clip")
    parser.add_argument("--images", type=int, default=250)
    parser.add_argument("--side", type=int, default=400, help="of the drawn images, in pixels")
    parser.add_argument("--clip-retrieval", metavar="PROGRAM", help="clip-retrieval's command in its own environment")
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()
