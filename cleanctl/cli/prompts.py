"""`cleanctl prompts show|check|write`: the sentences that stand for each class."""

from __future__ import annotations

import typer

from cleanctl.cli.console import Run
from cleanctl.config import PromptsCheckConfig, PromptsShowConfig, PromptsWriteConfig
from cleanctl.errors import InputError, UsageError


def show(config: PromptsShowConfig | None, run: Run) -> None:
    """Show a prompt set by class.

    As embed would use it; without SET, the list of the sets that are shipped.

    Examples

      cleanctl prompts show
      cleanctl prompts show cifar10 --class cat
      cleanctl prompts show photo --classes classes.txt --json
    """
    from cleanctl import api
    from cleanctl.cli.tables.prompts import prompt_lines, sets_table

    if config is None:
        sets = api.prompt_sets()
        run.result(sets, shown=sets_table(sets))
        return
    listing = api.show_prompts(config)
    run.result(listing, shown=prompt_lines(listing))


def check(config: PromptsCheckConfig | None, run: Run) -> None:
    """Find what is wrong with a prompt set.

    Errors: unequal counts, repeated and shared sentences, and with --model sentences longer than it reads.
    Warnings: near repeats, and with --model classes whose prompts embed almost alike.
    Ends with 3 if there are errors, else with 0.

    Examples

      cleanctl prompts check my-prompts.toml
      cleanctl prompts check cifar100 --model ViT-B-32-quickgelu --pretrained openai
    """
    from cleanctl import api
    from cleanctl.cli.tables.prompts import check_lines

    if config is None:
        raise _missing("SET", "cleanctl prompts check FILE")
    found = api.check_prompts(config, progress=run.progress)
    run.result(found, shown=check_lines(found))
    if found.errors:
        raise typer.Exit(InputError.exit_code)


def write(config: PromptsWriteConfig | None, run: Run) -> None:
    """Let a language model describe the classes.

    Asks a service class by class, or prints the request for a chat and reads what it answered.
    Nothing is sent anywhere without --endpoint.
    Each class is kept as it is answered: the same command again asks for what is missing.

    Examples

      cleanctl prompts write p.toml --classes c.txt --endpoint http://localhost:8000/v1 --llm qwen
      cleanctl prompts write p.toml --classes c.txt --print > request.txt
      cleanctl prompts write p.toml --classes c.txt --answers answer.json
    """
    from cleanctl import api
    from cleanctl.cli.tables.prompts import written_lines

    if config is None:
        raise _missing("FILE", "cleanctl prompts write FILE --classes FILE --print")
    written = api.write_prompts(config, progress=run.progress)
    run.result(written, shown=written_lines(written))


def _missing(argument: str, example: str) -> UsageError:
    return UsageError(f"{argument} is missing.", do=f"Name it: {example}")
