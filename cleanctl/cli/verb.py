"""A verb's command line from its config class: every field is an option, and what all verbs share is added here.

A command is `def select(config: SelectConfig, store: Path, run: Run, out: … = None)`: it takes of `config`, `store`
and `run` what it needs, and declares what else it has as typer options. `verb` gives the function that typer is told.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import typer

from cleanctl.cli.console import running
from cleanctl.config.option import Declared, members, options_of
from cleanctl.paths import store_path

STORE = Annotated[
    str | None,
    typer.Option("--store", metavar="<path>", help="The store (default: $CLEANCTL_STORE, else ./cleanctl.zarr)."),
]
JSON = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.", rich_help_panel="Output")]
QUIET = Annotated[
    bool, typer.Option("--quiet", "-q", help="Print neither progress nor tables.", rich_help_panel="Output")
]
DEBUG = Annotated[bool, typer.Option("--debug", help="Show an error's traceback.", rich_help_panel="Output")]


def verb(command: Callable[..., None]) -> Callable[..., None]:
    """The function whose signature typer reads. `config` is None where its argument (SOURCE) was left out."""
    hints = get_type_hints(command, include_extras=True)
    hints.pop("return", None)
    config_class = next((kind for kind in get_args(hints.get("config")) or [hints.get("config")] if kind), None)
    declared = options_of(config_class) if config_class else ()
    takes_store = "store" in hints

    def run_verb(**values: Any) -> None:
        shared = {name: values.pop(name) for name in ("as_json", "quiet", "debug")}
        with running(**shared) as run:
            given: dict[str, Any] = {"run": run}
            if takes_store:
                given["store"] = store_path(values.pop("store"))
            if config_class:
                given["config"] = _config(config_class, declared, values)
            command(**given, **values)

    parameters = [_parameter(one) for one in declared]
    parameters += [one for one in _signature(command, hints) if one.name not in ("config", "store", "run")]
    shared = {"store": STORE, "as_json": JSON, "quiet": QUIET, "debug": DEBUG}
    for name in list(shared)[0 if takes_store else 1 :]:
        parameters.append(_keyword(name, shared[name], None if name == "store" else False))
    run_verb.__doc__, run_verb.__name__ = command.__doc__, command.__name__
    run_verb.__annotations__ = {one.name: one.annotation for one in parameters}
    run_verb.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return run_verb


def _config(config_class: type, declared: tuple[Declared, ...], values: dict[str, Any]) -> Any:
    """The config of what was typed; takes its values out of `values`."""
    given = {one.field.name: values.pop(one.field.name) for one in declared}
    for one in declared:
        value = given[one.field.name]
        if value is None and one.option.argument:
            return None
        if value is None or value == []:
            del given[one.field.name]  # the default
    return config_class(**given)


def _signature(command: Callable[..., None], hints: dict[str, Any]) -> Iterator[inspect.Parameter]:
    for one in inspect.signature(command).parameters.values():
        yield _keyword(one.name, hints[one.name], one.default)


def _keyword(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _parameter(one: Declared) -> inspect.Parameter:
    """One field as typer's parameter. What is wrong with a value is told by the config, so words stay texts here."""
    about, default = one.option, inspect.Parameter.empty if one.required else one.field.default
    kind, words = _kind(one)
    declared: dict[str, Any] = {
        "help": about.help,
        "metavar": about.metavar or "|".join(words) or None,
        "show_default": default not in (None, (), inspect.Parameter.empty),
    }
    if about.argument:
        return _keyword(
            one.field.name, Annotated[str | None, typer.Argument(**declared | {"metavar": about.name})], None
        )
    flags = [about.name] if about.flag or default is False else []
    panel = about.panel or None
    if default in (None, ()):
        kind, default = kind | None, None
    return _keyword(one.field.name, Annotated[kind, typer.Option(*flags, **declared, rich_help_panel=panel)], default)


def _kind(one: Declared) -> tuple[Any, tuple[str, ...]]:
    """What typer reads of the command line, and the words to choose from."""
    kinds = [kind for kind in members(one.hint) if kind is not NoneType]
    if one.option.known is not None:
        return str, tuple(one.option.known.built_in)
    if get_origin(kinds[0]) is Literal:
        return str, get_args(kinds[0])
    if one.option.parse is not None:
        return str, ()
    if get_origin(kinds[0]) is tuple:
        return list[str], ()
    return kinds[0] if len(kinds) == 1 else str, ()
