"""The verbs as Python: the same work as the command line, typed, silent unless a `Progress` is passed.

    from cleanctl.api import embed, select, train, evaluate
    from cleanctl.config import EmbedConfig, SelectConfig

    embed(EmbedConfig(source=Path("webvision")))
    summary = select(SelectConfig(strategy="intersection"))
    table = read_selection()

Every function takes a frozen config and the store's path (default: $CLEANCTL_STORE, else ./cleanctl.zarr), leaves its
result in the store or beside it, and returns a record of `cleanctl.results`. It raises `cleanctl.errors.CleanctlError`.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from cleanctl.errors import StoreError
from cleanctl.paths import beton_path, report_path, store_path, tars_path
from cleanctl.progress import SILENT, Progress
from cleanctl.review.verbs import apply_review, audit, list_review, remove_review, sample_review, serve_review

if TYPE_CHECKING:
    import pyarrow as pa

    from cleanctl.config import (
        AdaptConfig,
        ConflictsConfig,
        DiffConfig,
        EmbedConfig,
        EvalConfig,
        ExportConfig,
        ImportConfig,
        PromptsCheckConfig,
        PromptsShowConfig,
        PromptsWriteConfig,
        ReportConfig,
        ReproduceConfig,
        SelectConfig,
        TrainConfig,
    )
    from cleanctl.export.exporter import Exporter
    from cleanctl.images.geometry import Crop
    from cleanctl.images.loaders import SeededLoader
    from cleanctl.records import PixelSpec
    from cleanctl.results import (
        AdaptResult,
        ConflictsSummary,
        EmbedSummary,
        EvalReport,
        ExportResult,
        FailureReport,
        PromptCheck,
        PromptListing,
        PromptsWritten,
        ReportResult,
        ReproduceReport,
        SeedsResult,
        SelectionDiff,
        SelectionSummary,
        ShippedSets,
        StatusReport,
        TrainResult,
    )
    from cleanctl.store import Split, Store
    from cleanctl.train.loaders import ReadsImages
    from cleanctl.train.sets import LoaderFactory
    from cleanctl.train.trained import TrainedRun

__all__ = [
    "adapt",
    "apply_review",
    "audit",
    "check_prompts",
    "conflicts",
    "diff",
    "embed",
    "evaluate",
    "export",
    "failures",
    "import_arrays",
    "list_review",
    "prompt_sets",
    "read_selection",
    "remove_review",
    "report",
    "reproduce",
    "sample_review",
    "select",
    "serve_review",
    "show_prompts",
    "status",
    "train",
    "train_seeds",
    "write_prompts",
]


def embed(config: EmbedConfig, *, store: Path | str | None = None, progress: Progress = SILENT) -> EmbedSummary:
    """Images of a folder, a label table, tars or a URL → image and text embeddings in the store."""
    path = store_path(store)
    if config.devices:
        from cleanctl.distributed.devices import embed_on_devices

        return embed_on_devices(config, path, embed=_embed_here, progress=progress)
    return _embed_here(config, path, progress)


def _embed_here(config: EmbedConfig, path: Path, progress: Progress) -> EmbedSummary:
    """In this process, or from it by an engine; by name, because the processes of `--devices` import it."""
    from cleanctl.datasets.source import open_source
    from cleanctl.distributed.ray_embed import embed_on_ray

    dataset = open_source(config, cache=tars_path(path), progress=progress)
    for text in dataset.notes:
        progress.note(text)
    if config.engine == "ray":
        return embed_on_ray(dataset, path, config, progress=progress)
    from cleanctl.embed.embed import embed_dataset

    return embed_dataset(dataset, path, config, progress=progress)


def failures(*, store: Path | str | None = None) -> FailureReport:
    """Every image of the store that could not be embedded, why, and what its first bytes are."""
    from cleanctl.datasets.source import open_files
    from cleanctl.embed.failures import report_failures
    from cleanctl.store import Store

    opened = Store.open(store_path(store))
    return report_failures(opened, open_files(opened.source, cache=tars_path(opened.path)))


def export(config: ExportConfig, *, store: Path | str | None = None, progress: Progress = SILENT) -> ExportResult:
    """A selection's samples, filtered → one file or folder that another tool reads (`config.to`)."""
    from cleanctl.datasets.source import open_files
    from cleanctl.export.chosen import choose
    from cleanctl.export.targets.target import Written, write_target
    from cleanctl.registry import TARGETS
    from cleanctl.results import ExportResult
    from cleanctl.store import Store

    opened = Store.open(store_path(store))
    target = TARGETS.load(config.to)()
    files = open_files(opened.source, cache=tars_path(opened.path))
    split = opened.split(config.split)
    chosen = choose(opened, split, config, files, usual_take=target.usual_take, progress=progress)
    if config.dry_run:
        written = Written(examples=tuple(target.names(chosen)[:3]))
    else:
        written = write_target(target, config.out, chosen, progress)
    if written.missing:
        progress.warn(f"{written.missing:,} images could not be read any more; they were left out.")
    return ExportResult(
        to=config.to,
        out=str(config.out),
        split=chosen.split,
        selection=chosen.selection,
        samples=len(chosen) - written.missing,
        relabelled=chosen.relabelled,
        missing=written.missing,
        classes=len(set(chosen.label_M.tolist())),
        examples=written.examples,
        dry_run=config.dry_run,
    )


def status(*, store: Path | str | None = None) -> StatusReport:
    """What the store holds, what of it is stale and why, and what to type next; reads only."""
    from cleanctl.status.examine import examine
    from cleanctl.store import Store

    return examine(Store.open(store_path(store)))


def import_arrays(
    config: ImportConfig, *, store: Path | str | None = None, progress: Progress = SILENT
) -> EmbedSummary:
    """Embeddings and labels in .npy files → store."""
    from cleanctl.embed.arrays import import_arrays as run

    return run(config, store_path(store), progress=progress)


def select(
    config: SelectConfig,
    *,
    store: Path | str | None = None,
    out: Path | None = None,
    progress: Progress = SILENT,
) -> SelectionSummary:
    """Embeddings and labels → which samples to keep, by `config.strategy`; `out` writes the table (.parquet, .csv).
    Under torchrun each process calls it, and each gets the result."""
    from cleanctl.distributed.score import score_rows, started_parts
    from cleanctl.export.exporter import exporter_for
    from cleanctl.store import Store

    path, exporter = store_path(store), None if out is None else exporter_for(out)
    with started_parts(config) as parts:
        progress = progress if parts.number == 0 else SILENT
        parts.from_first(lambda: Store.open(path).join_shards(config.split))
        opened = Store.open(path)
        split = opened.split(config.split)
        split.require_complete(partial=config.partial)
        score_rows(opened, split, config, parts, progress=progress)
        return parts.from_first(lambda: _selected(opened, split, config, exporter, out, progress))


def _selected(
    store: Store,
    split: Split,
    config: SelectConfig,
    exporter: Exporter | None,
    out: Path | None,
    progress: Progress,
) -> SelectionSummary:
    """From stored scores, and written to `out`."""
    from cleanctl.export.exporter import write_table
    from cleanctl.selection.select import select_split
    from cleanctl.selection.table import selection_table

    summary = select_split(store, split, config, progress=progress)
    if exporter is None or out is None:
        return summary
    arrays = split.read_result("selections", summary.name).arrays
    write_table(exporter, out, *selection_table(split, arrays, store.classes))
    progress.note(f"The table of {split.num_rows:,} rows lies in {out}.")
    return replace(summary, out=str(out))


def read_selection(store: Path | str | None = None, name: str | None = None, *, split: str = "train") -> pa.Table:
    """A stored selection (default: the newest of the split) as the table that `select` writes with `out`.

    Columns: key, label, label_name, keep, suggested_label, suggested_name, p_label, p_max, then for each rule used
    <rule>.score and <rule>.keep; a row for each sample, in store order. StoreError where there is no such selection.
    """
    import pyarrow as pa

    from cleanctl.selection.table import selection_table
    from cleanctl.store import Store

    opened = Store.open(store_path(store))
    rows = opened.split(split)
    newest = next(reversed(rows.results("selections")), None) if name is None else name
    if newest is None:
        raise StoreError(f"Split {split!r} of {opened.path} has no selection yet.", do="Make one: cleanctl select")
    schema, batches = selection_table(rows, rows.read_result("selections", newest).arrays, opened.classes)
    return pa.Table.from_batches(batches, schema)


def diff(config: DiffConfig, *, store: Path | str | None = None, out: Path | None = None) -> SelectionDiff:
    """Two stored selections → which samples differ and why; `out` writes them as a table (.parquet, .csv)."""
    from cleanctl.export.exporter import exporter_for, write_table
    from cleanctl.selection.diff import compare, describe, diff_table
    from cleanctl.store import Store

    exporter = None if out is None else exporter_for(out)
    opened = Store.open(store_path(store))
    split = opened.split(config.split)
    first, second = split.selections.read(config.first), split.selections.read(config.second)
    found = compare(first, second)
    report = describe(split, first, second, found, opened.classes)
    if exporter is None or out is None:
        return report
    write_table(exporter, out, *diff_table(split, found, (first.name, second.name), opened.classes))
    return replace(report, out=str(out))


def conflicts(
    config: ConflictsConfig, *, store: Path | str | None = None, out: Path | None = None, progress: Progress = SILENT
) -> ConflictsSummary:
    """Copies, leaks, contradictory labels, placeholders → the score `conflict`; `out`: .parquet, .csv or .json."""
    from cleanctl.conflicts.find import find_conflicts
    from cleanctl.conflicts.table import conflicts_table
    from cleanctl.export.exporter import exporter_for, write_table
    from cleanctl.store import Store

    exporter = None if out is None else exporter_for(out)
    opened = Store.open(store_path(store))
    loaders = _loaders(opened, config, progress, packing=False)
    summary = find_conflicts(opened, config, open_loader=loaders, progress=progress)
    if exporter is None or out is None:
        return summary
    write_table(exporter, out, *conflicts_table(opened, config.split))
    return replace(summary, out=str(out))


def adapt(config: AdaptConfig, *, store: Path | str | None = None, progress: Progress = SILENT) -> AdaptResult:
    """Embeddings and noisy labels → a detector beside the store, and the score `detector` in it."""
    from cleanctl.store import Store

    opened = Store.open(store_path(store))
    if config.engine == "ray":
        from cleanctl.distributed.ray_apply import apply_on_ray

        return apply_on_ray(opened, config, progress=progress)
    from cleanctl.adapt.run import adapt as run

    return run(opened, config, loader_factory=_loaders(opened, config, progress), progress=progress)


def train(config: TrainConfig, *, store: Path | str | None = None, progress: Progress = SILENT) -> TrainResult:
    """Images, labels and a selection → a run folder beside the store, with checkpoints and metrics."""
    from cleanctl.images.packed.rows import usual_side
    from cleanctl.store import Store
    from cleanctl.train.run import train as run

    opened = Store.open(store_path(store))
    loaders = _loaders(opened, config, progress)
    side = usual_side(beton_path(opened.path, config.split))
    return run(opened, config, loader_factory=loaders, progress=progress, image_side=side)


def train_seeds(
    config: TrainConfig, seeds: int, *, store: Path | str | None = None, progress: Progress = SILENT
) -> SeedsResult:
    """`train` with `seeds` seeds from config.seed on, a run folder each; mean and deviation of what they reach."""
    from cleanctl.store import Store
    from cleanctl.train.seeds import train_seeds as run

    path = store_path(store)
    opened = Store.open(path)
    return run(opened, config, seeds, run=lambda one: train(one, store=path, progress=progress), progress=progress)


def evaluate(config: EvalConfig, *, store: Path | str | None = None, progress: Progress = SILENT) -> EvalReport:
    """Store and runs → selection quality, zero-shot accuracy, accuracy of the trained model."""
    from cleanctl.evaluate.evaluate import evaluate_store
    from cleanctl.store import Store

    def open_run(folder: Path, checkpoint: str, device: str) -> TrainedRun:
        from cleanctl.train.trained import open_run as open_with_torch

        return open_with_torch(folder, checkpoint, device)

    opened = Store.open(store_path(store))
    loaders = _loaders(opened, config, progress)
    return evaluate_store(opened, config, loader_factory=loaders, open_run=open_run, progress=progress)


def report(config: ReportConfig, *, store: Path | str | None = None, progress: Progress = SILENT) -> ReportResult:
    """A selection, its evidence, images and the runs → one HTML file, and the selection's table beside it."""
    from cleanctl.datasets.source import open_files_for_page
    from cleanctl.report.write import write_report
    from cleanctl.store import Store

    opened = Store.open(store_path(store))
    files = open_files_for_page(opened.source, cache=tars_path(opened.path), progress=progress)
    out = config.out or report_path(opened.path)
    return write_report(opened, config, out=out, files=files, progress=progress)


def prompt_sets() -> ShippedSets:
    """The prompt sets that the package ships."""
    from cleanctl.prompts.show import list_sets

    return list_sets()


def show_prompts(config: PromptsShowConfig) -> PromptListing:
    """A prompt set by class, as `embed` would use it."""
    from cleanctl.prompts.show import show_prompts as run

    return run(config)


def check_prompts(config: PromptsCheckConfig, *, progress: Progress = SILENT) -> PromptCheck:
    """What is wrong with a prompt set; `errors` of the result counts what `embed` would refuse or lose."""
    from cleanctl.prompts.check import check_prompts as run

    return run(config, progress=progress)


def write_prompts(config: PromptsWriteConfig, *, progress: Progress = SILENT) -> PromptsWritten:
    """Feature phrases of a language model → a prompt file, class by class; nothing is sent without an endpoint."""
    from cleanctl.prompts.write import write_prompts as run

    return run(config, progress=progress)


def reproduce(config: ReproduceConfig, *, progress: Progress = SILENT) -> ReproduceReport:
    """A published table, its values beside those measured here; what is kept in `config.out` is used again."""
    from cleanctl.reproduce.cells import Verbs
    from cleanctl.reproduce.run import reproduce_table

    return reproduce_table(config, Verbs(embed, select, train, evaluate, adapt), progress=progress)


def _loaders(store: Store, config: ReadsImages, progress: Progress, *, packing: bool = True) -> LoaderFactory:
    def open_split(split: str, spec: PixelSpec, crop: Crop | None = None) -> SeededLoader:
        from cleanctl.train.loaders import store_loaders  # loads slowly, and `eval` without a run opens none

        return store_loaders(store, config, progress, packing=packing)(split, spec, crop)

    return open_split
