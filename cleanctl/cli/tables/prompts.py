"""What `prompts show`, `check` and `write` tell."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.text import Text

from cleanctl.cli.tables.shared import Summary, new_table
from cleanctl.results import PromptCheck, PromptListing, PromptsWritten, ShippedSets

SHOWN_FINDINGS = 20


def sets_table(record: ShippedSets) -> list[Any]:
    table = new_table("Prompt sets", "name", "classes", "prompts a class")
    for one in record.sets:
        table.add_row(escape(one.name), f"{one.classes:,}" if one.classes else "any", f"{one.prompts:,}")
    said = f"{len(record.sets)} sets are shipped; a file of your own is given by --prompts FILE."
    return [table, Summary((said,), ("cleanctl prompts show NAME",))]


def prompt_lines(record: PromptListing) -> list[Any]:
    lines: list[Any] = [Text(f"{record.name}  ({record.file})", style="dim")]
    for one in record.classes:
        lines.append(Text(one.name, style="bold"))
        lines += [Text(f"  {sentence}") for sentence in one.prompts]
    lines += [Text(note, style="dim") for note in record.notes]
    sentences = sum(len(one.prompts) for one in record.classes)
    said = f"{escape(record.name)}: {_counts(len(record.classes), sentences)}."
    return [*lines, Summary((said,), (f"cleanctl prompts check {shlex.quote(_given(record))}",))]


def _counts(classes: int, sentences: int) -> str:
    return f"{classes:,} class{'' if classes == 1 else 'es'}, {sentences:,} sentence{'' if sentences == 1 else 's'}"


def _given(record: PromptListing) -> str:
    """What names the set on a command line: `features:cifar10` is cifar10, a file is its path."""
    name = record.name.removeprefix("features:")
    return name if Path(record.file).stem == name and not Path(name).exists() else record.file


def check_lines(record: PromptCheck) -> list[Any]:
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
    counts = _counts(record.classes, record.prompts)
    warnings = len(record.findings) - record.errors
    said = f"{escape(record.name)}: {counts}, {record.errors:,} errors, {warnings:,} warnings."
    following = f"cleanctl embed SOURCE --prompts {shlex.quote(record.name)}"
    return [*lines, Summary((said,), () if record.errors else (following,))]


def written_lines(record: PromptsWritten) -> list[Any]:
    if record.request:
        return [Text(record.request)]
    missing = f", {len(record.missing):,} are missing" if record.missing else ""
    described = len(record.written) + len(record.kept)
    said = f"{escape(record.file)} describes {described:,} classes, {len(record.written):,} of them now{missing}."
    file = shlex.quote(record.file)
    following = (f"cleanctl prompts check {file}", f"cleanctl embed SOURCE --prompts {file}")
    return [Summary((said,), () if record.missing else following)]
