"""What was typed wrong, told as every other error is: fact, what was meant, where the help is; exit code 2.

typer's own words for a verb or an option that does not exist differ from ours, and with --json there would be none.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any

import typer

from cleanctl.errors import UsageError
from cleanctl.meant import meant

# Of a verb that takes no argument: the option that a bare word was probably meant for.
MEANT_OPTION = {
    "select": "--strategy",
    "train": "--selection",
    "eval": "--selection",
    "report": "--out",
    "status": "--store",
    "audit": "--selection",
    "demo": "--folder",
}
SURPLUS = re.compile(r"extra argument\w*(?:\(s\))? \((.*)\)$", re.DOTALL)
FEW = 4  # verbs that are listed as those that have an option
Mistake: Any = typer.BadParameter.__base__  # click's UsageError, or that of the copy of click inside typer


def unknown_verb(context: Any, word: str) -> UsageError:
    """No command of `context`'s group has this name."""
    known = list(context.command.commands)
    if word in ("help", "version"):
        return UsageError(
            f"{context.command_path} has no command {word!r}.",
            do=f"Type cleanctl --{word}." if word == "version" else f"Type {context.command_path} [COMMAND] --help.",
        )
    return UsageError(
        f"{context.command_path} has no command {word!r}{meant(word, known)}",
        do=f"Give one of: {', '.join(known)}.",
    )


def explained(mistake: Any) -> UsageError:
    """Of what typer says of options and arguments."""
    context = mistake.ctx
    where = context.command_path if context else "cleanctl"
    option = getattr(mistake, "option_name", None)
    if context is not None and option is not None and hasattr(mistake, "possibilities"):
        return _unknown_option(context, option)
    surplus = SURPLUS.search(mistake.format_message())
    if context is not None and surplus:
        return _surplus_words(context, surplus[1])
    return UsageError(f"{where}: {_sentence(mistake.format_message())}", do=f"See: {where} --help")


def _surplus_words(context: Any, words: str) -> UsageError:
    where = context.command_path
    takes = any(one.param_type_name == "argument" for one in context.command.params)
    option = MEANT_OPTION.get(context.info_name or "")
    guess = f"Did you mean: {where} {option} {words}   (see: {where} --help)"
    return UsageError(
        f"{where} takes no {'more words' if takes else 'word without an option'}: {words!r}.",
        do=guess if option and len(words.split()) == 1 else f"See: {where} --help",
    )


def _unknown_option(context: Any, option: str) -> UsageError:
    own = set(_options(context.command))
    others = [name for name, command in _commands(context.find_root().command) if option in set(_options(command))]
    if not hasattr(context.command, "commands") or len(others) <= FEW:
        elsewhere = f"{_listed(others)} {'has' if len(others) == 1 else 'have'} it." if others else ""
    else:
        elsewhere = f"It is an option of commands: {context.command_path} COMMAND {option}."
    return UsageError(
        f"{context.command_path} has no option {option}{'.' if others else meant(option, own)}",
        so=elsewhere,
        do=f"See: {context.command_path} --help",
    )


def _commands(group: Any, above: str = "cleanctl") -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _commands(command, f"{above} {name}")
        else:
            yield f"{above} {name}", command


def _options(command: Any) -> Iterator[str]:
    for parameter in command.params:
        yield from (*parameter.opts, *parameter.secondary_opts)


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _sentence(text: str) -> str:
    text = " ".join(inspect.cleandoc(text).split())
    return text if text.endswith((".", "?")) else f"{text}."
