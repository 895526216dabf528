"""`cleanctl select`: store → selection."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cleanctl.cli.console import running
from cleanctl.cli.options import DebugOption, DeviceOption, JsonOption, QuietOption, StoreOption
from cleanctl.config import SelectConfig
from cleanctl.paths import store_path


def select(
    strategy: Annotated[
        str, typer.Option(metavar="EXPR", help="intersection, union, vote:K, or rules joined by & | ~ and brackets.")
    ] = SelectConfig.strategy,
    name: Annotated[
        str | None, typer.Option(help="The selection's name (default: the strategy).", show_default=False)
    ] = None,
    split: Annotated[str, typer.Option(help="The split to select from.")] = SelectConfig.split,
    theta_gmm: Annotated[
        float, typer.Option(help="Least posterior of the clean component (loss rules).", rich_help_panel="Thresholds")
    ] = SelectConfig.theta_gmm,
    theta_consistency: Annotated[
        float,
        typer.Option(
            help="Least ratio of the label's probability to the highest (consistency rules).",
            rich_help_panel="Thresholds",
        ),
    ] = SelectConfig.theta_consistency,
    theta_similarity: Annotated[
        float,
        typer.Option(help="Least cosine between image and label (zeroshot.similarity).", rich_help_panel="Thresholds"),
    ] = SelectConfig.theta_similarity,
    temperature: Annotated[
        float, typer.Option(help="Of the zero-shot probabilities.", rich_help_panel="Scores")
    ] = SelectConfig.temperature,
    prompt_pooling: Annotated[
        str, typer.Option(metavar="sum|mean", help="How a class's prompts are pooled.", rich_help_panel="Scores")
    ] = SelectConfig.prompt_pooling,
    crossfit: Annotated[
        int,
        typer.Option(
            metavar="K", help="Folds for out-of-sample logistic scores; 0 as in the paper.", rich_help_panel="Scores"
        ),
    ] = SelectConfig.crossfit,
    logistic_solver: Annotated[
        str,
        typer.Option(
            metavar="auto|lbfgs|cuml",
            help="Who fits logistic; both reach the same optimum. auto: cuML for small problems on CUDA.",
            rich_help_panel="Machine",
        ),
    ] = SelectConfig.logistic_solver,
    neighbors: Annotated[
        int, typer.Option(help="Neighbours of the knn scorer.", rich_help_panel="Scores")
    ] = SelectConfig.neighbors,
    knn_index: Annotated[
        str,
        typer.Option(
            metavar="exact|ivf",
            help="How knn searches; ivf (FAISS) is for millions of images, and its recall is measured.",
            rich_help_panel="Scores",
        ),
    ] = SelectConfig.knn_index,
    knn_probes: Annotated[
        int,
        typer.Option(help="Cells that ivf visits for each image; more find more.", rich_help_panel="Scores"),
    ] = SelectConfig.knn_probes,
    mixture_posterior: Annotated[
        str,
        typer.Option(
            metavar="fitted|monotone",
            help="Loss rules: the mixture's posterior as in the papers, or mended so that it never falls as the "
            "score rises.",
            rich_help_panel="Thresholds",
        ),
    ] = SelectConfig.mixture_posterior,
    fallback: Annotated[
        str,
        typer.Option(
            metavar="best|none|lowest", help="What a class gets that would keep nothing.", rich_help_panel="Thresholds"
        ),
    ] = SelectConfig.fallback,
    compat: Annotated[
        str | None,
        typer.Option(
            metavar="paper-code",
            help="Reproduce the published code, oddities included.",
            show_default=False,
            rich_help_panel="Thresholds",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of everything random.", rich_help_panel="Scores")] = SelectConfig.seed,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Write the selection table: FILE.parquet or FILE.csv.", show_default=False, rich_help_panel="Run"
        ),
    ] = None,
    device: DeviceOption = "auto",
    partial: Annotated[
        bool, typer.Option("--partial", help="Accept a store that is not complete.", rich_help_panel="Run")
    ] = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Decide which labels to trust, and keep the evidence.

    A rule is SCORER.MECHANISM: scorers zeroshot, logistic, knn; mechanisms loss, consistency, match. The default,
    intersection, is the paper's: zeroshot.loss & zeroshot.consistency & logistic.loss & logistic.consistency.

    Which one: intersection (or zeroshot.loss) where wrong labels cost most, as before training; zeroshot.consistency
    or logistic.consistency where images are scarce; union or vote:2 for little noise or review by people.

    [bold]Examples[/bold]

      cleanctl select
      cleanctl select --strategy "zeroshot.loss & ~knn.match" --name suspects --out suspects.csv
    """
    with running(as_json=as_json, quiet=quiet, debug=debug) as run:
        config = SelectConfig(
            strategy=strategy,
            name=name,
            split=split,
            theta_gmm=theta_gmm,
            theta_consistency=theta_consistency,
            theta_similarity=theta_similarity,
            temperature=temperature,
            prompt_pooling=prompt_pooling,
            crossfit=crossfit,
            logistic_solver=logistic_solver,
            neighbors=neighbors,
            knn_index=knn_index,
            knn_probes=knn_probes,
            mixture_posterior=mixture_posterior,
            fallback=fallback,
            compat=compat,
            seed=seed,
            device=device,
            partial=partial,
        )
        from cleanctl import api
        from cleanctl.cli.tables import selection_tables

        summary = api.select(config, store=store_path(store), out=out, progress=run.progress)
        run.result(summary.to_json(), shown=selection_tables(summary.to_json()))
