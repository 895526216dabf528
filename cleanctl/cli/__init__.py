"""The command line: one file a verb; each parses into a frozen config, makes one call and renders the result.

Nothing heavy is imported before a verb runs: `cleanctl --help` loads neither torch nor zarr nor open_clip.
"""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from cleanctl import __version__
from cleanctl.cli import (
    adapt,
    audit,
    conflicts,
    demo,
    diff,
    doctor,
    embed,
    evaluate,
    export,
    import_arrays,
    prompts,
    report,
    reproduce,
    review,
    select,
    status,
    train,
)
from cleanctl.cli.console import fail
from cleanctl.cli.misuse import Mistake, explained, unknown_verb
from cleanctl.cli.verb import verb
from cleanctl.errors import UsageError
from cleanctl.runtime import ending_promptly


class _PlainOverview(TyperGroup):
    """The list of verbs without panels: rich takes longer to load than everything else that `--help` needs.

    What is typed wrong is told in our words (misuse.py).
    """

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
        return super().parse_args(ctx, args)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        super(TyperGroup, self).format_help(ctx, formatter)


app = typer.Typer(
    name="cleanctl",
    cls=_PlainOverview,
    help="Find out which labels of a large image dataset to trust, and train on the result.",
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    epilog="A first run: cleanctl embed images/ · cleanctl select · cleanctl train · cleanctl eval",
    context_settings={"help_option_names": ["-h", "--help"]},
)

prompts_app = typer.Typer(
    cls=_PlainOverview,
    help="Show, check and write the sentences that stand for each class.",
    epilog="For example: cleanctl prompts show cifar10 · cleanctl prompts check my-prompts.toml",
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
prompts_app.command("show")(verb(prompts.show))
prompts_app.command("check")(verb(prompts.check))
prompts_app.command("write")(verb(prompts.write))

review_app = typer.Typer(
    cls=_PlainOverview,
    help="Put people's verdicts on labels into the store, and look at them.",
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
review_app.command("sample")(verb(audit.sample))
review_app.command("apply")(verb(review.apply))
review_app.command("serve")(verb(review.serve))
review_app.command("list")(verb(review.show))
review_app.command("remove")(verb(review.remove))

app.command("embed")(verb(embed.embed))
app.command("import")(verb(import_arrays.import_arrays))
app.command("select")(verb(select.select))
app.command("conflicts")(verb(conflicts.conflicts))
app.command("adapt")(verb(adapt.adapt))
app.command("train")(verb(train.train))
app.command("eval")(verb(evaluate.evaluate))
app.add_typer(prompts_app, name="prompts")
app.add_typer(review_app, name="review")
app.command("audit")(verb(audit.audit))
app.command("reproduce")(verb(reproduce.reproduce))
app.command("report")(verb(report.report))
app.command("export")(verb(export.export))
app.command("diff")(verb(diff.diff))
app.command("status")(verb(status.status))
app.command("demo")(verb(demo.demo))
app.command("doctor")(verb(doctor.doctor))


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
        app()
