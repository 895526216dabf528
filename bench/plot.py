"""The picture of a suite's numbers: `python -m bench.plot bench/results/select.jsonl --out bench/results/rows.svg`.

In: result lines, of which the last `select rows` is taken. Out: SVG or PNG, by the name's ending: microseconds a row
over the number of rows, for each stage of a selection and all of them.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

STAGES = {"zeroshot_us": "zero-shot", "mixture_us": "mixtures", "logistic_us": "logistic", "all_us": "all"}


def last_line(path: Path, suite: str) -> dict[str, Any]:
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    found = [line for line in lines if line["suite"] == suite]
    if not found:
        raise SystemExit(f"{path} holds no {suite!r}; make one with: python -m bench.select --parts rows --out {path}")
    return found[-1]


def draw_rows(line: dict[str, Any], out: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "cleanctl"  # the same numbers give the same file
    from matplotlib import pyplot

    rows = [row["rows"] for row in line["rows"]]
    figure, axes = pyplot.subplots(figsize=(6.4, 4.0), layout="constrained")
    for key, name in STAGES.items():
        cost = [row[key] for row in line["rows"]]
        (drawn,) = axes.plot(rows, cost, marker="o", markersize=4, linewidth=2.5 if key == "all_us" else 1.5)
        axes.annotate(name, (rows[-1], cost[-1]), (6, 0), "data", "offset points", va="center", color=drawn.get_color())
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("rows (100 classes, 800 prompts, 512 dimensions)")
    axes.set_ylabel("microseconds a row")
    axes.set_title(f"Cost of a selection per row; {line['device']}, {line['threads']} threads", fontsize=10, loc="left")
    axes.margins(x=0.14)
    axes.grid(alpha=0.3, which="major")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(out, metadata={"Date": None} if out.suffix == ".svg" else None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="FILE.svg or FILE.png")
    options = parser.parse_args()
    draw_rows(last_line(options.results, "select rows"), options.out)
    print(f"Written: {options.out}")


if __name__ == "__main__":
    main()
