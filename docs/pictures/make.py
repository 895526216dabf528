"""The pictures of docs/, from a store that `cleanctl demo` made: `python docs/pictures/make.py cleanctl-demo`.

Charts are the report's own, drawn from the stored scores, on a light ground of their own; the first screen of the
report is photographed in Chromium. Leaves report.jpg, sheet.jpg and the .svg files beside this file.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

from cleanctl.api import report, select
from cleanctl.config import ReportConfig, SelectConfig
from cleanctl.demo.sheet import draw_sheet
from cleanctl.report.evidence import evidence_of
from cleanctl.report.sections.thresholds import _mixtures_of, _scores_of
from cleanctl.report.snapshot import take_snapshot
from cleanctl.store import Store

HERE = Path(__file__).parent
COLOURS = {
    "ink": "#1f2328",
    "muted": "#59636e",
    "line": "#c8ccd1",
    "accent": "#00695c",
    "keep": "#0b7a5e",
    "drop": "#b4491f",
}
SCREEN = (1280, 900)


def main(demo: Path) -> None:
    store = Store.open(demo / "cleanctl.zarr")
    split = store.split("train")
    snapshot = take_snapshot(store, split, "intersection")
    evidence = {one.name: one for one in evidence_of(snapshot)}
    for rule in ("zeroshot.loss", "logistic.loss"):
        save(f"{rule}.svg", first_picture(_mixtures_of(snapshot, evidence[rule])))
    for rule in ("zeroshot.consistency", "logistic.consistency"):
        save(f"{rule}.svg", first_picture(_scores_of(snapshot, evidence[rule])))
    photograph(demo)
    sheet(demo)


def first_picture(html: str) -> str:
    start = html.index("<svg")
    return html[start : html.index("</svg>", start) + len("</svg>")]


def save(name: str, svg: str) -> None:
    """As a file of its own: with its name space, its colours and a ground."""
    rules = "".join(f".{kind}{{color:{colour}}}" for kind, colour in COLOURS.items())
    style = f"<style>{rules}text{{font-family:sans-serif}}</style>"
    head, body = svg.split(">", 1)
    head = head.replace("<svg", '<svg xmlns="http://www.w3.org/2000/svg"')
    (HERE / name).write_text(f'{head}>{style}<rect width="100%" height="100%" fill="#fff"/>{body}\n')


def photograph(demo: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        page, shot = Path(folder) / "page.html", Path(folder) / "page.png"
        report(ReportConfig(out=page, selection="intersection"), store=demo / "cleanctl.zarr")
        size = f"--window-size={SCREEN[0]},{SCREEN[1]}"
        chromium = ["chromium", "--headless", "--no-sandbox", "--hide-scrollbars", "--disable-gpu"]
        subprocess.run(
            [*chromium, f"--screenshot={shot}", size, page.as_uri()], check=True, capture_output=True, timeout=300
        )
        with Image.open(shot) as image:
            image.convert("RGB").save(HERE / "report.jpg", quality=78, optimize=True, progressive=True)


def sheet(demo: Path) -> None:
    import csv

    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "selection.csv"
        select(SelectConfig(device="cpu"), store=demo / "cleanctl.zarr", out=table)
        with open(table) as file:
            rows = list(csv.DictReader(file))
        with open(demo / "labels.csv") as file:
            truth = {row["path"]: row["truth"] for row in csv.DictReader(file)}
        drawn = draw_sheet(rows, truth, demo / "images", Path(folder) / "sheet.png")
        with Image.open(drawn) as image:
            image.convert("RGB").save(HERE / "sheet.jpg", quality=75, optimize=True, progressive=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
