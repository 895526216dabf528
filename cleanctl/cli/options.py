"""Options that several verbs share, declared once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

StoreOption = Annotated[
    Path | None,
    typer.Option("--store", help="The store [default: $CLEANCTL_STORE, else ./cleanctl.zarr].", show_default=False),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Print neither progress nor tables.")]
DebugOption = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
DeviceOption = Annotated[str, typer.Option("--device", metavar="auto|cuda|cpu", help="Where to compute.")]
PrecisionOption = Annotated[
    str, typer.Option("--precision", metavar="auto|fp16|bf16|fp32", help="auto: fp16 on CUDA, native bf16, else fp32.")
]
LoaderOption = Annotated[
    str,
    typer.Option("--loader", metavar="auto|ffcv|torch", help="How images are read; auto: FFCV if it is there."),
]
WorkersOption = Annotated[
    int | None, typer.Option("--workers", help="Processes that read images [default: one a core].", show_default=False)
]
