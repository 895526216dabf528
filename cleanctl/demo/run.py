"""`cleanctl demo`: the whole way from images to a trained network on drawn data, by the real verbs.

In a folder of its own it draws a dataset, copies the shipped model beside it, then embeds, selects, trains twice (plain
cross-entropy on every label; MixFix on the selection), evaluates and writes the report. Each step is a command line
that a person could type; the same words are parsed into the same config and run here, in one process. What is there
already is used again.

It leaves in the folder what draw.py says, and model/, prompts.toml, shapes.toml (the recipe), cleanctl.zarr with its
.beton files, selection.csv, cleanctl.runs/, cleanctl.report.html with its table, and sheet.png. Nothing comes from the
network.
"""

from __future__ import annotations

import csv
import filecmp
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cleanctl.config import DemoConfig, EmbedConfig, EvalConfig, ReportConfig, SelectConfig, TrainConfig
from cleanctl.demo.draw import STAMP, Drawing, DrawnFiles, draw_dataset
from cleanctl.errors import InputError
from cleanctl.progress import SILENT, Progress
from cleanctl.results import DemoResult, EvalReport, ReportResult

HERE = Path(__file__).parent
MODEL = HERE / "model"
TABLES = ("prompts.toml", "shapes.toml")  # what the encoder is told, and the recipe of both trainings
PAGES = ("cleanctl.report.html", "cleanctl.report.parquet")
RUNS = {"cross-entropy": "all", "mixfix": "intersection"}


@dataclass(frozen=True, kw_only=True)
class Step:
    """One verb: the words that a person would type after `cleanctl`, and the config that those words mean."""

    title: str
    words: tuple[str, ...]
    config: EmbedConfig | SelectConfig | TrainConfig | EvalConfig | ReportConfig
    out: Path | None = None


def run_demo(
    config: DemoConfig, *, announce: Callable[[str], None] = lambda line: None, progress: Progress = SILENT
) -> DemoResult:
    """Everything above; `announce` gets each command line before it runs. Raises whatever the verbs raise."""
    clock = Clock()
    with clock.time("draw"):
        drawn = prepare(config, progress)
    store = config.folder / "cleanctl.zarr"
    announce(f"export CLEANCTL_STORE={store}")
    *verbs, evaluation, page = steps(config, drawn)
    for step in verbs:
        announce("cleanctl " + " ".join(step.words))
        with clock.time(step.title):
            _run(step, store, progress)
    announce("cleanctl " + " ".join(evaluation.words))
    with clock.time(evaluation.title):
        report = _evaluate(evaluation, store, progress)
    sheet = _draw_sheet(config, drawn)
    announce("cleanctl " + " ".join(page.words))
    with clock.time(page.title):
        written = _report(page, store, progress)
    return _result(config, report, sheet, written, clock.seconds)


class Clock:
    """Wall seconds by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def time(self, name: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - began, 2)


# ---- before the verbs


def prepare(config: DemoConfig, progress: Progress) -> DrawnFiles:
    """The drawn dataset, the model and its prompts in the demo's folder."""
    folder = config.folder
    _check_folder(folder)
    drawing = Drawing(train=config.images, test=config.images // 4)
    if config.fresh or not (drawing.lies_in(folder) and _same_model(folder / "model")):
        # Another drawing or model makes the store and the runs in here meaningless.
        clear(folder)
    drawn = draw_dataset(folder, drawing, progress=progress)
    if drawn.reused:
        progress.note(f"{folder} holds this drawing already; what is there is used again (--fresh starts over).")
    shutil.copytree(MODEL, folder / "model", dirs_exist_ok=True)
    for name in TABLES:
        shutil.copy(HERE / name, folder / name)
    return drawn


def _check_folder(folder: Path) -> None:
    """A demo's folder is new, empty, or an earlier demo's: nothing else is written into or cleared."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file.", do="Choose another --folder.")
    ours = {STAMP, "images", "model"}
    if folder.is_dir() and any(folder.iterdir()) and not ours & {entry.name for entry in folder.iterdir()}:
        raise InputError(
            f"{folder} is not empty, and no demo made it.",
            so="The demo would mix with it.",
            do="Choose another --folder.",
        )


def _same_model(folder: Path) -> bool:
    return all((folder / path.name).is_file() and filecmp.cmp(path, folder / path.name) for path in MODEL.iterdir())


def clear(folder: Path) -> None:
    """Removes what an earlier demo left, by name; anything else in the folder stays."""
    for name in ("images", "model", "cleanctl.zarr", "cleanctl.runs"):
        shutil.rmtree(folder / name, ignore_errors=True)
    for name in (STAMP, "labels.csv", "classes.txt", *TABLES, "selection.csv", "sheet.png", *PAGES):
        (folder / name).unlink(missing_ok=True)
    for beton in folder.glob("cleanctl.*.beton*"):
        beton.unlink()


# ---- the verbs


def steps(config: DemoConfig, drawn: DrawnFiles) -> list[Step]:
    """The demo's commands in order. A test parses `words` with the real command line and compares the configs."""
    folder, device = config.folder, config.device
    on = () if device == "auto" else ("--device", device)
    recipe = str(folder / "shapes.toml")
    model, prompts, table = folder / "model", folder / "prompts.toml", folder / "selection.csv"
    embed = Step(
        title="embed",
        words=(
            *("embed", str(drawn.images), "--labels", str(drawn.labels), "--truth-column", "truth"),
            *("--classes", str(drawn.classes), "--model", f"local-dir:{model}", "--prompts", str(prompts), *on),
        ),
        config=EmbedConfig(
            source=str(drawn.images),
            labels=str(drawn.labels),
            truth_column="truth",
            classes=str(drawn.classes),
            model=f"local-dir:{model}",
            prompts=str(prompts),
            device=device,
        ),
    )
    select = Step(
        title="select",
        words=("select", "--out", str(table), *on),
        config=SelectConfig(device=device),
        out=table,
    )
    runs = [
        Step(
            title=method,
            words=("train", "--method", method, "--selection", selection, "--recipe", recipe, "--name", method, *on),
            config=TrainConfig(method=method, selection=selection, recipe=recipe, name=method, device=device),
        )
        for method, selection in RUNS.items()
    ]
    evaluate = Step(title="eval", words=("eval", "--run", "all", *on), config=EvalConfig(run="all", device=device))
    page = Step(title="report", words=("report",), config=ReportConfig())
    return [embed, select, *runs, evaluate, page]


def _run(step: Step, store: Path, progress: Progress) -> None:
    """Runs one verb and says in a line what came of it; the verbs' own tables would bury the demo's one."""
    from cleanctl import api

    match step.config:
        case EmbedConfig():
            made = api.embed(step.config, store=store, progress=progress)
            counts = ", ".join(f"{split.ok:,} of {split.split}" for split in made.splits)
            progress.note(f"The store holds {made.dim} dimensions of each image: {counts}.")
        case SelectConfig():
            chosen = api.select(step.config, store=store, out=step.out, progress=progress)
            progress.note(f"Selection {chosen.name} keeps {chosen.kept:,} of {chosen.count:,} labels.")
        case TrainConfig():
            trained = api.train(step.config, store=store, progress=progress)
            progress.note(f"Run {trained.name}: {trained.last_top1 or 0:.1%} of the test images right.")


def _evaluate(step: Step, store: Path, progress: Progress) -> EvalReport:
    from cleanctl import api

    assert isinstance(step.config, EvalConfig)
    return api.evaluate(step.config, store=store, progress=progress)


def _report(step: Step, store: Path, progress: Progress) -> ReportResult:
    from cleanctl import api

    assert isinstance(step.config, ReportConfig)
    return api.report(step.config, store=store, progress=progress)


# ---- after the verbs


def _result(
    config: DemoConfig, report: EvalReport, sheet: Path, page: ReportResult, seconds: dict[str, float]
) -> DemoResult:
    """Every number is one that `cleanctl eval` gave."""
    chosen = report.selection
    assert chosen is not None
    accuracy = {run.run: run.accuracy.top1 or 0.0 for run in report.runs if run.checkpoint == "last"}
    return DemoResult(
        folder=str(config.folder),
        images=config.images,
        kept=chosen.found.kept,
        wrong_labels=chosen.noise,
        precision=chosen.found.precision or 0.0,  # None: nothing was kept
        recall=chosen.found.recall or 0.0,
        zero_shot=next(zero.pooled.top1 or 0.0 for zero in report.zero_shot if zero.split == "test"),
        cross_entropy=accuracy["cross-entropy"],
        mixfix=accuracy["mixfix"],
        sheet=str(sheet),
        report=page.out,
        seconds=seconds,
    )


def _draw_sheet(config: DemoConfig, drawn: DrawnFiles) -> Path:
    from cleanctl.demo.sheet import draw_sheet

    with drawn.labels.open(newline="", encoding="utf-8") as file:
        truth = {row["path"]: row["truth"] for row in csv.DictReader(file)}
    with (config.folder / "selection.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return draw_sheet(rows, truth, drawn.images, config.folder / "sheet.png")
