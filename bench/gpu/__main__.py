"""What one GPU reaches of its limits, in about 200 seconds.

    python -m bench.gpu [--seconds 200] [--out FILE] [--parts kernels,encoder,…]
    python -m bench.gpu --device cpu --tiny        every part on a few numbers, once: whether it runs, not how fast

ceilings  copies and products, what the rest is held against
kernels   the three Triton kernels, on inputs that take turns
encoder   ViT-B/32 with random weights at two batch sizes, on pixels that are ready
train     MixFix steps as `train` takes them, against the network alone
select    zeroshot, logistic and kNN at a million rows
embed     files to a store, by FFCV and by nvJPEG: 256 drawn photographs under 32,768 names

Prints one JSON line for each number, with device and versions, and a table at the end. A part that fails is a line with
its error; the others run, and the exit code is 1. A part that is not begun within the seconds is a line that says so.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.gpu import kernels, verbs
from bench.gpu.measure import TINY, Bench, Sizes
from cleanctl.runtime import choose_device

# Each with its share of the seconds.
PARTS: dict[str, tuple[Callable[[Bench, float], None], float]] = {
    "ceilings": (kernels.ceilings, 0.05),
    "kernels": (kernels.kernels, 0.08),
    "encoder": (kernels.encoder, 0.15),
    "train": (verbs.train, 0.15),
    "select": (verbs.select, 0.22),
    "embed": (verbs.embed, 0.35),
}


def main(arguments: list[str] | None = None) -> int:
    options = _options(arguments)
    wanted = options.parts.split(",") if options.parts else list(PARTS)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(
            device=choose_device(options.device).value,
            sizes=TINY if options.tiny else Sizes(),
            seconds=options.seconds,
            home=Path(folder),
            out=options.out,
        )
        failed = [name for name in PARTS if name in ("ceilings", *wanted) and not run(bench, name)]
    print_table(bench)
    return int(bool(failed))


def run(bench: Bench, name: str) -> bool:
    """False if the part failed; its error is a line, and its trace goes to stderr."""
    work, share = PARTS[name]
    if bench.left <= 0:
        bench.emit({"what": name, "skipped": f"the {bench.seconds:g} seconds are over"})
        return True
    try:
        work(bench, 0 if bench.sizes == TINY else bench.seconds * share)
    except Exception as exc:  # noqa: BLE001 - a card is at hand for minutes: one part's error must not cost the rest
        traceback.print_exc()
        bench.emit({"what": name, "error": f"{type(exc).__name__}: {exc}"})
        return False
    return True


def print_table(bench: Bench) -> None:
    table = Table(title=f"bench gpu on {bench.device}", title_justify="left")
    for name in ("what", "rate", "unit", "share", "of"):
        table.add_column(name, justify="right" if name in ("rate", "share") else "left")
    for row in bench.rows:
        if "rate" not in row:
            table.add_row(row["what"], "", "", "", row.get("error") or row.get("skipped", ""))
            continue
        share = "" if row["share"] is None else f"{row['share']:.0%}"
        table.add_row(row["what"], f"{row['rate']:.3g}", row["unit"], share, row["of"])
    Console(width=None if sys.stdout.isatty() else 120).print(table)


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=200)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--parts", default="", help=f"of {', '.join(PARTS)}; ceilings always run")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(arguments)
    if unknown := [name for name in options.parts.split(",") if name and name not in PARTS]:
        parser.error(f"--parts names {unknown[0]!r}; there are: {', '.join(PARTS)}")
    return options


if __name__ == "__main__":
    sys.exit(main())
