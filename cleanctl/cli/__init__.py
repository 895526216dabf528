"""The command line: one file a verb; each parses into a frozen config, makes one call and renders the result.

Nothing heavy is imported before a verb runs: `cleanctl --help` loads neither torch nor zarr nor open_clip, and a verb
neither the options nor the results of the others.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, MutableMapping
from importlib import import_module
from typing import Annotated, Any, ClassVar

import typer
from typer.core import TyperCommand, TyperGroup

from cleanctl import __version__
from cleanctl.cli.console import fail
from cleanctl.cli.help import help_of
from cleanctl.cli.misuse import Mistake, explained, unknown_verb
from cleanctl.cli.streams import prepare, unwritable
from cleanctl.cli.values import convert_plainly
from cleanctl.cli.verb import verb
from cleanctl.errors import UsageError
from cleanctl.runtime import ending_promptly

HELP = {"help_option_names": ["-h", "--help"]}


class _Verb(TyperCommand):
    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        convert_plainly(self.get_params(ctx))
        return super().parse_args(ctx, args)

    def get_help(self, ctx: Any) -> str:
        return help_of(self, ctx)


class _Commands(MutableMapping[str, Any]):
    """A group's commands by name; one of our own is imported and built when it is asked for.

    places: name → `file:function` of cleanctl.cli. added: commands that are there already, after them in order.
    """

    def __init__(self, places: dict[str, str], added: dict[str, Any]) -> None:
        self._places, self._built = places, dict(added)

    def __getitem__(self, name: str) -> Any:
        if name not in self._built:
            file, _, function = self._places[name].partition(":")
            one = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
            one.command(name, cls=_Verb)(verb(getattr(import_module(f"cleanctl.cli.{file}"), function)))
            self._built[name] = typer.main.get_command(one)
        return self._built[name]

    def __setitem__(self, name: str, command: Any) -> None:
        self._built[name] = command

    def __delitem__(self, name: str) -> None:
        del self._built[name]

    def __iter__(self) -> Iterator[str]:
        yield from dict.fromkeys([*self._places, *self._built])

    def __len__(self) -> int:
        return len(self._places.keys() | self._built.keys())


class _PlainOverview(TyperGroup):
    """The list of verbs without panels: rich takes longer to load than everything else that `--help` needs.

    What is typed wrong is told in our words (misuse.py).
    """

    places: ClassVar[dict[str, str]] = {}

    def __init__(self, **given: Any) -> None:
        super().__init__(**{**given, "commands": _Commands(self.places, given["commands"])})

    def main(
        self,
        args: Any = None,
        prog_name: Any = None,
        complete_var: Any = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **named: Any,
    ) -> Any:
        words = list(sys.argv[1:] if args is None else args)
        try:
            code = super().main(words, prog_name, complete_var, False, windows_expand_args, **named)
        except (Mistake, UsageError) as mistake:
            if not standalone_mode:
                raise
            error = mistake if isinstance(mistake, UsageError) else explained(mistake)
            fail(error, as_json="--json" in words)
            code = error.exit_code
        except OSError as error:
            if not {"--help", "-h", "--version"} & {*words}:
                raise
            fail(unwritable(error), as_json=False)
            code = unwritable(error).exit_code
        if not standalone_mode:
            return code
        sys.exit(code if isinstance(code, int) else 0)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        known = self.get_command(ctx, args[0]) is not None
        if not known and not ctx.resilient_parsing and not args[0].startswith("-"):
            raise unknown_verb(ctx, args[0])
        return super().resolve_command(ctx, args)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args and not ctx.resilient_parsing:
            typer.echo(ctx.get_help(), err=True)
            ctx.exit(2)
        convert_plainly(self.get_params(ctx))
        return super().parse_args(ctx, args)

    def get_help(self, ctx: Any) -> str:
        return help_of(self, ctx)


class _Verbs(_PlainOverview):
    places: ClassVar[dict[str, str]] = {
        "embed": "embed:embed",
        "import": "import_arrays:import_arrays",
        "select": "select:select",
        "conflicts": "conflicts:conflicts",
        "adapt": "adapt:adapt",
        "train": "train:train",
        "eval": "evaluate:evaluate",
        "audit": "audit:audit",
        "reproduce": "reproduce:reproduce",
        "report": "report:report",
        "export": "export:export",
        "diff": "diff:diff",
        "status": "status:status",
        "demo": "demo:demo",
        "doctor": "doctor:doctor",
    }


class _Prompts(_PlainOverview):
    places: ClassVar[dict[str, str]] = {"show": "prompts:show", "check": "prompts:check", "write": "prompts:write"}


class _Review(_PlainOverview):
    places: ClassVar[dict[str, str]] = {
        "sample": "audit:sample",
        "apply": "review:apply",
        "serve": "review:serve",
        "list": "review:show",
        "remove": "review:remove",
    }


app = typer.Typer(
    name="cleanctl",
    cls=_Verbs,
    help="Find out which labels of a large image dataset to trust, and train on the result.",
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    epilog="\n  cleanctl ".join(("A first run:\n", "embed images/", "select", "report --open", "train", "eval")),
    context_settings=HELP,
)

prompts_app = typer.Typer(
    cls=_Prompts,
    help="Show, check and write the sentences that stand for each class.",
    epilog="Examples\n\n  cleanctl prompts show cifar10\n  cleanctl prompts check my-prompts.toml",
    rich_markup_mode=None,
    context_settings=HELP,
)
review_app = typer.Typer(
    cls=_Review,
    help="Put people's verdicts on labels into the store, and look at them.",
    rich_markup_mode=None,
    context_settings=HELP,
)
app.add_typer(prompts_app, name="prompts")
app.add_typer(review_app, name="review")


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"cleanctl {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """The console script."""
    with ending_promptly():
        prepare()
        app()
