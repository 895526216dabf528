"""Options that several verbs share, declared once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

StoreOption = Annotated[
    Path | None,
    typer.Option("--store", help="The store (default: $CLEANCTL_STORE, else ./cleanctl.zarr).", show_default=False),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.", rich_help_panel="Output")]
QuietOption = Annotated[
    bool, typer.Option("--quiet", "-q", help="Print neither progress nor tables.", rich_help_panel="Output")
]
DebugOption = Annotated[bool, typer.Option("--debug", help="Show an error's traceback.", rich_help_panel="Output")]
DeviceOption = Annotated[
    str, typer.Option("--device", metavar="auto|cuda|cpu", help="Where to compute.", rich_help_panel="Machine")
]
PrecisionOption = Annotated[
    str,
    typer.Option(
        "--precision",
        metavar="auto|fp16|bf16|fp32",
        help="auto: fp16 on CUDA, native bf16, else fp32.",
        rich_help_panel="Machine",
    ),
]
LoaderOption = Annotated[
    str,
    typer.Option(
        "--loader",
        metavar="auto|ffcv|torch|nvjpeg",
        help="How images are read; auto: FFCV if it is there; nvjpeg: on the GPU.",
        rich_help_panel="Machine",
    ),
]
WorkersOption = Annotated[
    int | None,
    typer.Option(
        "--workers",
        help="Processes that read images (default: one a core).",
        show_default=False,
        rich_help_panel="Machine",
    ),
]
