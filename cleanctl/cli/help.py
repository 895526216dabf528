"""`--help` as plain text: headings, options on the left, what they do on the right, as wide as the terminal.

Nothing is cut off: where the columns are too narrow for both, what an option does stands below it. Only the standard
library is loaded, so that help is quick.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import textwrap
from collections.abc import Iterator
from typing import Any

from cleanctl.cli.folding import fold

WIDEST = 100  # longer lines are hard to read
LEAST = 30  # columns; a terminal that says less is taken for one of these
LEFT = 30  # columns of names at most; a longer one has its help below it
NARROW = 60  # below it, every help stands under its name
Row = tuple[str, str]


def help_of(command: Any, context: Any, *, width: int | None = None, bold: bool | None = None) -> str:
    """The help of a verb or of a group of verbs. width: columns (default: the terminal's). bold: headings are."""
    columns = max(LEAST, min(width or shutil.get_terminal_size().columns, WIDEST))
    parts = [_usage(command, context, columns), *_prose(command.help or "", columns)]
    sections: dict[str, list[Row]] = {}
    for one in command.get_params(context):
        if not getattr(one, "hidden", False):
            sections.setdefault(_heading(one), []).append((_name(one), _told(one, context)))
    verbs = getattr(command, "commands", {})
    if verbs:
        sections["Commands"] = [(name, _first_sentence(verbs[name].help)) for name in verbs]
    order = sorted(sections, key=lambda heading: (heading != "Arguments", heading != "Options"))
    longest = max(len(name) for rows in sections.values() for name, _ in rows)
    left = min(longest, LEFT) + 4 if columns >= NARROW else 6
    parts += ["\n".join([_strong(f"{name}:", bold), *_rows(sections[name], left, columns)]) for name in order]
    parts += _prose(command.epilog or "", columns)
    return "\n\n".join(parts)


def _usage(command: Any, context: Any, columns: int) -> str:
    words = [context.command_path, *command.collect_usage_pieces(context)]
    return textwrap.fill(" ".join(words), columns, initial_indent="Usage: ", subsequent_indent="         ")


def _prose(text: str, columns: int) -> Iterator[str]:
    """A docstring's paragraphs, filled; what is indented are commands, each of which can still be copied."""
    for part in re.split(r"\n[ \t]*\n", textwrap.dedent(text).strip("\n")):
        if re.match(r"[ \t]", part):
            yield "\n".join(_commands(part, columns))
        elif part:
            yield _fill(part, columns)


def _commands(part: str, columns: int) -> Iterator[str]:
    lines = part.replace("\\\n", " ").splitlines()
    for line in (" ".join(one.split()) for one in lines):
        pieces = [line] if len(line) + 2 <= columns else fold(line, width=columns - 6)
        yield from (f"    {piece}" if number else f"  {piece}" for number, piece in enumerate(pieces))


def _heading(one: Any) -> str:
    if one.param_type_name == "argument":
        return "Arguments"
    return getattr(one, "rich_help_panel", None) or "Options"


def _name(one: Any) -> str:
    """`--theta-gmm NUMBER`, `-q, --quiet`, `--absorb, --no-absorb`, `SOURCE`."""
    metavar = one.metavar or ""
    if one.param_type_name == "argument":
        return f"{metavar}…" if one.nargs == -1 else metavar
    flags = ", ".join([*sorted(one.opts, key=lambda flag: flag.startswith("--")), *one.secondary_opts])
    return flags if one.is_flag or not metavar else f"{flags} {metavar}"


def _told(one: Any, context: Any) -> str:
    default = one.get_default(context, call=False) if getattr(one, "show_default", False) else None
    text = one.help or ""
    if one.required:
        text += " [required]"
    elif default is True and one.secondary_opts:
        text += f" [default: {one.opts[0]}]"
    elif not (default is None or isinstance(default, bool) or default in ("", (), [])):
        text += f" [default: {default}]"
    return text


def _rows(rows: list[Row], left: int, columns: int) -> Iterator[str]:
    for name, told in rows:
        beside = columns >= NARROW and len(name) + 4 <= left
        lines = textwrap.wrap(told, columns - left, break_on_hyphens=False, break_long_words=False)
        if not beside or not lines:
            yield from _broken(name, columns)
        for number, line in enumerate(lines):
            yield f"  {name}".ljust(left) + line if beside and number == 0 else " " * left + line


def _broken(name: str, columns: int) -> Iterator[str]:
    """An option with all the words it takes, on several lines where they are many."""
    line = "  "
    for piece in re.findall(r"[^|]+\|?", name):
        if len(line) + len(piece) > columns and line.strip():
            yield line
            line = "      "
        line += piece
    yield line


def _first_sentence(text: str | None) -> str:
    first = " ".join((text or "").partition("\n\n")[0].split())
    return first.partition(". ")[0].rstrip(".") + "."


def _fill(text: str, columns: int, indent: str = "") -> str:
    return textwrap.fill(
        " ".join(text.split()),
        columns,
        initial_indent=indent,
        subsequent_indent=indent,
        break_on_hyphens=False,
        break_long_words=False,
    )


def _strong(text: str, bold: bool | None) -> str:
    if bold is None:
        bold = sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return f"\033[1m{text}\033[0m" if bold else text
