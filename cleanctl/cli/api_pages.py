"""The Python API as one Markdown page: `python -m cleanctl.cli.api_pages > docs/api.md`.

From the signatures, docstrings and declared options, which are the only place where they are written. A test compares
the committed page with what this makes.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

from cleanctl.config.option import REQUIRED, Option, options_of

HEAD = """# The Python API

Made by `python -m cleanctl.cli.api_pages > docs/api.md`; do not edit.

Each verb of the command line is a function of `cleanctl.api`. It takes the verb's config (`cleanctl.config`), whose
fields are the options of the [command line](help.md), and returns a frozen record (`cleanctl.results`); every record
has `to_json()`. What a person did wrong is raised as a `cleanctl.errors.CleanctlError` with `found`, `so`, `do` and the
`exit_code` that the command line would end with. A worked example: [a notebook](howto/notebook.md).
"""


def api_page() -> str:
    """Markdown: verbs, then configs, results and errors, each in the order of its module's `__all__`."""
    import cleanctl.api
    import cleanctl.config
    import cleanctl.errors
    import cleanctl.results

    parts = [HEAD, "## Verbs"]
    parts += [_verb(getattr(cleanctl.api, name), name) for name in cleanctl.api.__all__]
    parts.append("## Configs\n\nFrozen and keyword-only; a wrong value raises UsageError when the config is made.")
    configs = [getattr(cleanctl.config, name) for name in cleanctl.config.__all__ if name.endswith("Config")]
    parts += [_config(one) for one in configs if one is not cleanctl.config.Config]
    parts.append("## Results\n\nShares, rates and accuracies are in [0, 1], times in seconds; None is not known.")
    parts += [_record(getattr(cleanctl.results, name)) for name in cleanctl.results.__all__ if name != "Result"]
    parts += ["## Errors", _errors(cleanctl.errors.CleanctlError)]
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def _verb(function: Any, name: str) -> str:
    signature = inspect.signature(function)
    written = [re.sub(r"<[^>]* object at \w+>", "SILENT", _code(str(one))) for one in signature.parameters.values()]
    keywords = [one.kind is inspect.Parameter.KEYWORD_ONLY for one in signature.parameters.values()]
    if True in keywords:
        written.insert(keywords.index(True), "*")
    line = f"{name}({', '.join(written)}) -> {_code(signature.return_annotation)}"
    if len(line) > 100:
        line = f"{name}(\n    " + ",\n    ".join(written) + f",\n) -> {_code(signature.return_annotation)}"
    return f"### {name}\n\n```py\n{line}\n```\n\n{_prose(function.__doc__)}"


def _config(config: type) -> str:
    rows = ["| field | type | default | meaning |", "|---|---|---|---|"]
    for one in options_of(config):
        rows.append(f"| `{one.field}` | {_cell(_code(config.__annotations__[one.field]))} | {_default(one)} | "
                    f"{_words(one.help)} |")  # fmt: skip
    return f"### {config.__name__}\n\n" + "\n".join(rows)


def _default(one: Option) -> str:
    if one.default is REQUIRED:
        return "required"
    if one.usual is not None:
        return f"`{one.usual!r}`, or the preset's"
    return "" if one.default in (None, ()) else _cell(str(one.default) if one.hint is bool else repr(one.default))


def _record(record: type) -> str:
    if not is_dataclass(record):
        return f"### {record.__name__}\n\n{_prose(record.__doc__)}"
    rows = ["| field | type |", "|---|---|"]
    rows += [f"| `{one.name}` | {_cell(_code(str(one.type)))} |" for one in fields(record)]
    own = [name for name, value in vars(record).items() if isinstance(value, property)]
    rows += [
        f"| `{name}` (computed) | {_cell(_code(vars(record)[name].fget.__annotations__['return']))} |" for name in own
    ]
    return f"### {record.__name__}\n\n{_prose(record.__doc__)}\n\n" + "\n".join(rows)


def _errors(base: type) -> str:
    rows = ["| error | exit code |", "|---|---|"]
    return "\n".join([*rows, *(f"| `{one.__name__}` | {one.exit_code} |" for one in _below(base))])


def _below(kind: Any) -> Iterator[Any]:
    yield kind
    for one in kind.__subclasses__():
        if one.__module__ == "cleanctl.errors":
            yield from _below(one)


def _prose(docstring: str | None) -> str:
    """A docstring as Markdown; one that a dataclass made of its signature says nothing."""
    text = inspect.cleandoc(docstring or "")
    return "" if re.match(r"\w+\(", text) else _words(text)


def _words(text: str) -> str:
    """Text for Markdown: what it would read as HTML or as a table's edge is escaped, outside of code."""
    pieces = re.split(r"(`[^`]*`)", text)
    return "".join(piece if piece.startswith("`") else re.sub(r"([<>|*_\[\]])", r"\\\1", piece) for piece in pieces)


def _cell(code: str) -> str:
    return f"`{code}`" if "|" not in code else f"`{code}`".replace("|", "\\|")


def _code(annotation: Any) -> str:
    """As it is written in the source: quotes of annotations that are texts are taken off."""
    return (
        re.sub(r"'([^']*)'(?= = |$|,|\))", r"\1", str(annotation))
        if "Literal" not in str(annotation)
        else str(annotation)
    )


if __name__ == "__main__":
    import sys

    sys.stdout.write(api_page())
