"""A verb's command line from its config class: every field is an option, and what all verbs share is added here.

A command is `def select(config: SelectConfig, store: Path, run: Run, out: … = None)`: it takes of `config`, `store`
and `run` what it needs, and declares what else it has as typer options. `verb` gives the function that typer is told.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import typer

from cleanctl.cli.complete import offers, store_offers
from cleanctl.cli.console import running
from cleanctl.config.option import REQUIRED, Option, members, options_of
from cleanctl.paths import store_path

GIVEN = ("config", "store", "run")  # what a command is given rather than declares
STORE = Annotated[
    str | None,
    typer.Option(
        "--store",
        metavar="PATH",
        help="The store (default: $CLEANCTL_STORE, else ./cleanctl.zarr).",
        autocompletion=store_offers,
    ),
]
METAVARS = {bool: None, int: "N", float: "X", Path: "PATH", list[str]: "NAME"}  # of options that declare none
OUTPUT = {
    name: Annotated[bool, typer.Option(*flags, help=help, rich_help_panel="Output")]
    for name, flags, help in (
        ("as_json", ["--json"], "Print one JSON object on stdout."),
        ("quiet", ["--quiet", "-q"], "Print neither progress nor tables."),
        ("debug", ["--debug"], "Show an error's traceback."),
    )
}


def verb(command: Callable[..., None]) -> Callable[..., None]:
    """The function whose signature typer reads. `config` is None where its argument (SOURCE) was left out."""
    hints = get_type_hints(command, include_extras=True)
    config_class = next(members(hints["config"])) if "config" in hints else None
    options = options_of(config_class) if config_class else ()

    def run_verb(as_json: bool, quiet: bool, debug: bool, **values: Any) -> None:
        of_store = "store" in hints
        with running(as_json=as_json, quiet=quiet, debug=debug, store=values.get("store"), of_store=of_store) as run:
            if of_store:
                values["store"] = store_path(values["store"])
            if config_class:
                values["config"] = _config(config_class, options, values)
            command(run=run, **values)

    own = inspect.signature(command).parameters.values()
    parameters = [_parameter(one) for one in options]
    parameters += [_keyword(one.name, hints[one.name], one.default) for one in own if one.name not in GIVEN]
    parameters += [_keyword("store", STORE, None)] if "store" in hints else []
    parameters += [_keyword(name, kind, False) for name, kind in OUTPUT.items()]
    run_verb.__doc__, run_verb.__name__ = inspect.cleandoc(command.__doc__ or ""), command.__name__
    run_verb.__annotations__ = {one.name: one.annotation for one in parameters}
    run_verb.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return run_verb


def _config(config_class: type, options: tuple[Option, ...], values: dict[str, Any]) -> Any:
    """The config of what was typed; takes its values out of `values`."""
    given = {one.field: values.pop(one.field) for one in options}
    if any(given[one.field] in (None, []) for one in options if _is_argument(one)):
        return None
    return config_class(**{name: value for name, value in given.items() if value not in (None, [])})


def _keyword(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _is_argument(one: Option) -> bool:
    return not one.flag.startswith("--")


def _parameter(one: Option) -> inspect.Parameter:
    """One field as typer's parameter. What is wrong with a value is told by the config, so words stay texts here."""
    default = inspect.Parameter.empty if one.default is REQUIRED else one.default
    kind, words = _kind(one)
    metavar = one.metavar or "|".join(words) or METAVARS.get(kind, "TEXT")
    shown = default not in (None, (), inspect.Parameter.empty)
    if _is_argument(one):
        argument = typer.Argument(help=one.help, metavar=one.flag, show_default=False, autocompletion=offers(one))
        given: Any = (list[str] if get_origin(one.hint) is tuple else str) | None
        return _keyword(one.field, Annotated[given, argument], None)
    if default in (None, ()):
        kind, default = kind | None, None
    option: Any = typer.Option(
        *([] if (kind is bool and default) or kind == bool | None else [one.flag]),  # typer adds --no-… to a bare name
        help=one.help if one.usual is None else f"{one.help} [default: {one.usual}, or the preset's]",
        metavar=metavar,
        show_default=shown,
        rich_help_panel=one.panel or None,
        autocompletion=offers(one),
    )
    return _keyword(one.field, Annotated[kind, option], default)


def _kind(one: Option) -> tuple[Any, tuple[str, ...]]:
    """What typer reads of the command line, and the words to choose from."""
    kinds = [kind for kind in members(one.hint) if kind is not NoneType]
    if one.known is not None:
        return str, tuple(one.known.built_in)
    if get_origin(kinds[0]) is Literal:
        return str, get_args(kinds[0])
    if one.parse is not None:
        return str, ()
    if get_origin(kinds[0]) is tuple:
        return list[str], ()
    return kinds[0] if len(kinds) == 1 else str, ()
