"""`cleanctl prompts show|check|write`: the sentences that stand for each class."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from cleanctl.cli.console import Run
from cleanctl.config import PromptsCheckConfig, PromptsShowConfig, PromptsWriteConfig
from cleanctl.errors import InputError

if TYPE_CHECKING:
    from cleanctl.prompts.records import PromptCheck, PromptListing, PromptsWritten, ShippedSets

SHOWN_FINDINGS = 20


def show(config: PromptsShowConfig | None, run: Run) -> None:
    """Show a prompt set by class.

    As embed would use it; without SET, the list of the sets that are shipped.

    [bold]Examples[/bold]

      cleanctl prompts show
      cleanctl prompts show cifar10 --class cat
      cleanctl prompts show photo --classes classes.txt --json
    """
    from cleanctl import api

    if config is None:
        sets = api.prompt_sets()
        run.result(sets, shown=_sets_table(sets))
        return
    listing = api.show_prompts(config)
    run.result(listing, shown=_listing(listing))


def check(config: PromptsCheckConfig | None, run: Run) -> None:
    """Find what is wrong with a prompt set.

    Errors: unequal counts, repeated and shared sentences, and with --model sentences longer than it reads.
    Warnings: near repeats, and with --model classes whose prompts embed almost alike.
    Ends with 3 if there are errors, else with 0.

    [bold]Examples[/bold]

      cleanctl prompts check my-prompts.toml
      cleanctl prompts check cifar100 --model ViT-B-32-quickgelu --pretrained openai
    """
    from cleanctl import api

    if config is None:
        raise _missing("SET", "cleanctl prompts check FILE")
    found = api.check_prompts(config, progress=run.progress)
    run.result(found, shown=_check_lines(found))
    if found.errors:
        raise typer.Exit(InputError.exit_code)


def write(config: PromptsWriteConfig | None, run: Run) -> None:
    """Let a language model describe the classes.

    Asks a service class by class, or prints the request for a chat and reads what it answered.
    Nothing is sent anywhere without --endpoint.
    Each class is kept as it is answered: the same command again asks for what is missing.

    [bold]Examples[/bold]

      cleanctl prompts write p.toml --classes c.txt --endpoint http://localhost:8000/v1 --llm qwen
      cleanctl prompts write p.toml --classes c.txt --print > request.txt
      cleanctl prompts write p.toml --classes c.txt --answers answer.json
    """
    from cleanctl import api

    if config is None:
        raise _missing("FILE", "cleanctl prompts write FILE --classes FILE --print")
    written = api.write_prompts(config, progress=run.progress)
    run.result(written, shown=_written_lines(written))


def _missing(argument: str, example: str) -> Exception:
    from cleanctl.errors import UsageError

    return UsageError(f"{argument} is missing.", do=f"Name it: {example}")


def _sets_table(record: ShippedSets) -> list[Any]:
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="dim")
    for place, title in enumerate(("set", "classes", "prompts a class")):
        table.add_column(title, justify="right" if place else "left")
    for one in record.sets:
        table.add_row(escape(one.name), f"{one.classes:,}" if one.classes else "any", f"{one.prompts:,}")
    return [table, "Their sentences: cleanctl prompts show NAME"]


def _listing(record: PromptListing) -> list[Any]:
    from rich.text import Text

    lines: list[Any] = [Text(f"{record.name}  ({record.file})", style="dim")]
    for one in record.classes:
        lines.append(Text(one.name, style="bold"))
        lines += [Text(f"  {sentence}") for sentence in one.prompts]
    return [*lines, *(Text(note, style="dim") for note in record.notes)]


def _check_lines(record: PromptCheck) -> list[Any]:
    from rich.text import Text

    lines: list[Any] = []
    for one in sorted(record.findings, key=lambda one: not one.error)[:SHOWN_FINDINGS]:
        word, style = ("error", "bold red") if one.error else ("warning", "yellow")
        lines.append(Text.assemble((word, style), f": {one.says}"))
    if len(record.findings) > SHOWN_FINDINGS:
        lines.append(f"… and {len(record.findings) - SHOWN_FINDINGS:,} more; --json has all.")
    if record.closest:
        pairs = ", ".join(f"{pair.first} – {pair.second} {pair.cosine:.3f}" for pair in record.closest)
        lines.append(Text(f"Closest pairs (told from {record.alike:g} on): {pairs}"))
    if record.context_length is not None:
        lines.append(Text(f"{record.model} reads {record.context_length} tokens of a sentence."))
    lines += [Text(text, style="dim") for text in record.left_out]
    counts = f"{record.classes:,} classes, {record.prompts:,} sentences"
    warnings = len(record.findings) - record.errors
    lines.append(Text(f"{record.name}: {counts}, {record.errors:,} errors, {warnings:,} warnings."))
    return lines


def _written_lines(record: PromptsWritten) -> list[Any]:
    from rich.text import Text

    if record.request:
        return [Text(record.request)]
    missing = f", {len(record.missing):,} are missing" if record.missing else ""
    described = len(record.written) + len(record.kept)
    lines: list[Any] = [
        Text(f"{record.file} describes {described:,} classes, {len(record.written):,} of them now{missing}.")
    ]
    if not record.missing:
        lines.append(
            Text(f"Next: cleanctl prompts check {record.file}   cleanctl embed SOURCE --prompts {record.file}")
        )
    return lines
