"""What a selection costs: beside the published procedure, at two million rows, and per row as N grows.

    python -m bench.select [--parts compare,whole,rows,scale,mixture,joint,processes] [--runs 3] [--device auto]
                           [--out FILE]

compare  N=50,000, D=512, C=100, P=800, embeddings of CLIP's geometry: both sides in processes of their own, in turn;
         seconds end to end (imports aside), peak resident memory, Jaccard similarity of the kept sets
whole    both sides as whole processes, and the other verbs on the store: bench.select_whole
scale    zero-shot rules over a store of --scale-rows × 512, 1,000 classes, 8,000 prompts: resident memory, and the
         rate as a share of the plain matrix product measured before and after in the same process
rows     zero-shot and logistic cost per row from 10 thousand rows up, 100 classes
joint    the scorer `joint` and `intersection` in turn: 50,000 × 512 with 100 classes, each of --joint-rows with 1,000
         and --joint-prompts over all classes; CPU seconds of both beside the clock's, which a busy machine moves less
processes  one process with all threads against processes of one thread each: bench.select_processes
mixture  1,000 classes × 2,400 samples: the CPU twin against a loop over scikit-learn's GaussianMixture
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.geometry import clip_like
from bench.harness import report, side_by_side, summarize
from bench.select_processes import processes
from bench.select_whole import whole


def compare(runs: int, device: str) -> list[dict[str, Any]]:
    """Each side `runs` times in turn, so that a machine that slows down slows both."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data.npz"
        np.savez(data, **vars(clip_like(50_000)))
        seen: dict[str, list[dict[str, Any]]] = {"reference": [], "cleanctl": []}
        for _ in range(runs):
            seen["reference"].append(_one_side("bench.reference_selection", data, Path(folder) / "reference.npz"))
            seen["cleanctl"].append(_one_side("bench.our_selection", data, Path(folder) / "cleanctl.npz", device))
    rows = []
    for side, results in seen.items():
        total = summarize([float(one["total"]) for one in results])
        steps = {
            key.removeprefix("seconds."): float(np.median([one[key] for one in results]))
            for key in results[0]
            if key.startswith("seconds.")
        }
        peak = float(np.median([one["peak"] for one in results]))
        above = float(np.median([one["peak"] - float(one["baseline"]) for one in results]))
        rows.append({"side": side, **total.to_json(), **steps, "peak_mib": peak, "above_imports_mib": above})
    ours, theirs = seen["cleanctl"][-1], seen["reference"][-1]
    for rule in ("intersection", "zeroshot.loss", "logistic.loss", "zeroshot.consistency", "logistic.consistency"):
        jaccard = (ours[rule] & theirs[rule]).sum() / max((ours[rule] | theirs[rule]).sum(), 1)
        rows[1][f"jaccard {rule}"] = float(jaccard)
        rows[0][f"jaccard {rule}"] = 1.0
    rows[1]["times_faster"] = rows[0]["median_s"] / rows[1]["median_s"]
    rows[1]["share_of_peak"] = rows[1]["peak_mib"] / rows[0]["peak_mib"]
    rows[0] |= {"times_faster": 1.0, "share_of_peak": 1.0}
    return [{"measure": key, "reference": rows[0][key], "cleanctl": rows[1][key]} for key in rows[1] if key != "side"]


def joint(runs: int, sizes: Sequence[int], many: int, device: str) -> list[dict[str, Any]]:
    """One warm process, --runs of the small size; of those with 1,000 classes, `many` prompts over all of them, a
    single run."""
    from bench.our_selection import select
    from cleanctl.records import TextEmbeddings
    from cleanctl.score.blocks import ArrayBlocks
    from cleanctl.score.compute import posterior_of

    rows = []
    for count, classes, prompts, repeats in ((50_000, 100, 800, runs), *((size, 1_000, many, 1) for size in sizes)):
        data = clip_like(count, classes=classes, prompts=prompts)
        text = TextEmbeddings(embedding_PD=data.text_PD, class_P=data.class_P, prompts=("",) * prompts)
        works = {
            "intersection": lambda data=data: select(
                data.image_ND, data.label_N, data.text_PD, data.class_P, device=device
            ),
            "joint": lambda data=data, text=text, classes=classes: posterior_of(
                "joint",
                ArrayBlocks(image_ND=data.image_ND),
                data.label_N.astype(np.int64),
                num_classes=classes,
                text=text,
                device=device,
                temperature=0.01,
            ),
        }
        cpu: dict[str, list[float]] = {name: [] for name in works}
        counted = {name: lambda work=work, into=cpu[name]: _cpu_counted(work, into) for name, work in works.items()}
        seen = side_by_side(counted, runs=repeats, warmup=1 if repeats > 1 else 0)
        for name, timing in seen.items():
            cpu_s = float(np.median(cpu[name][-repeats:]))
            times = {"times_intersection": timing.median / seen["intersection"].median}
            times["cpu_times"] = cpu_s / float(np.median(cpu["intersection"][-repeats:]))
            row = {
                "rows": count,
                "classes": classes,
                "prompts": prompts,
                "strategy": name,
                **timing.to_json(),
                "cpu_s": cpu_s,
                **times,
            }
            print(row, file=sys.stderr, flush=True)
            rows.append(row)
    return rows


def _cpu_counted(work: Callable[[], Any], into: list[float]) -> None:
    start = time.process_time()
    work()
    into.append(time.process_time() - start)


def _one_side(module: str, data: Path, out: Path, *more: str) -> dict[str, Any]:
    subprocess.run([sys.executable, "-m", module, str(data), str(out), *more], check=True)
    return dict(np.load(out))


def scale(rows: int, device: str) -> list[dict[str, Any]]:
    """In a child, so that its memory is its own."""
    done = subprocess.run(
        [sys.executable, "-m", "bench.select_scale", str(rows), device], stdout=subprocess.PIPE, text=True, check=True
    )
    import json

    return [json.loads(done.stdout.splitlines()[-1])]


def rows_curve(limit: int, device: str) -> list[dict[str, Any]]:
    """Microseconds a row of zero-shot and logistic scoring; data drawn chunk by chunk, held as float16."""
    from cleanctl.records import TextEmbeddings
    from cleanctl.runtime import choose_device
    from cleanctl.score.blocks import ArrayBlocks
    from cleanctl.score.compute import posterior_of
    from cleanctl.score.mixture import loss_scores

    on = choose_device(device).value
    few = clip_like(2_000)  # what is imported and set up at the first use
    posterior_of("logistic", ArrayBlocks(image_ND=few.image_ND), few.label_N, num_classes=100, device=device)
    text = TextEmbeddings(embedding_PD=few.text_PD, class_P=few.class_P, prompts=("",) * len(few.class_P))
    posterior_of("zeroshot", ArrayBlocks(image_ND=few.image_ND), few.label_N, num_classes=100, text=text, device=device)
    found = []
    for count in [n for n in (10_000, 50_000, 200_000, 500_000, 2_000_000) if n <= limit]:
        data = clip_like(count)
        blocks = ArrayBlocks(image_ND=data.image_ND)
        text = TextEmbeddings(embedding_PD=data.text_PD, class_P=data.class_P, prompts=("",) * len(data.class_P))
        marks = [time.perf_counter()]
        posterior = posterior_of("zeroshot", blocks, data.label_N, num_classes=100, text=text, device=device)
        marks.append(time.perf_counter())
        loss_scores(posterior.log_p_label, data.label_N, num_classes=100, device=on)
        marks.append(time.perf_counter())
        posterior_of("logistic", blocks, data.label_N, num_classes=100, device=device)
        marks.append(time.perf_counter())
        cost = np.diff(marks) / count * 1e6
        found.append(
            {"rows": count, "zeroshot_us": cost[0], "mixture_us": cost[1], "logistic_us": cost[2], "all_us": cost.sum()}
        )
    return found


def mixture(classes: int = 1_000, samples: int = 2_400) -> list[dict[str, Any]]:
    """The twin on all classes; scikit-learn's loop on a tenth of them, times ten."""
    from cleanctl_kernels import Ragged, mixture_em
    from sklearn.mixture import GaussianMixture

    rng = np.random.default_rng(0)
    score_CN = np.where(
        rng.random((classes, samples)) < rng.uniform(0.2, 0.8, (classes, 1)),
        rng.normal(0.35, 0.12, (classes, samples)),
        rng.normal(0.8, 0.08, (classes, samples)),
    )
    low, high = score_CN.min(axis=1, keepdims=True), score_CN.max(axis=1, keepdims=True)
    score_CN = (score_CN - low) / (high - low)
    ragged = Ragged(score_CN.ravel(), np.arange(classes + 1) * samples)
    ours = []
    for _ in range(5):
        start = time.perf_counter()
        mixture_em(ragged)
        ours.append(time.perf_counter() - start)
    start = time.perf_counter()
    for values in score_CN[: classes // 10]:
        GaussianMixture(2, random_state=0).fit(values[:, None])
    loop = 10 * (time.perf_counter() - start)
    timing = summarize(ours)
    return [{"classes": classes, "samples": samples, **timing.to_json(), "loop_s": loop, "times": loop / timing.median}]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default="compare,rows,mixture,scale,joint,whole,processes")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--scale-rows", type=int, default=2_000_000)
    parser.add_argument("--joint-rows", type=int, nargs="*", default=[2_000_000])
    parser.add_argument("--joint-prompts", type=int, default=8_000)
    parser.add_argument("--process-rows", type=int, default=262_144)
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    parts = {
        "compare": lambda: compare(options.runs, options.device),
        "rows": lambda: rows_curve(options.rows, options.device),
        "mixture": mixture,
        "joint": lambda: joint(options.runs, options.joint_rows, options.joint_prompts, options.device),
        "whole": lambda: whole(options.runs),
        "processes": lambda: processes(options.runs, options.process_rows),
        "scale": lambda: scale(options.scale_rows, options.device),
    }
    for name in options.parts.split(","):
        report(f"select {name}", parts[name](), out=options.out)


if __name__ == "__main__":
    main()
