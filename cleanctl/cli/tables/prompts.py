"""What `prompts show`, `check` and `write` tell."""

from __future__ import annotations

from typing import Any

from rich.markup import escape
from rich.text import Text

from cleanctl.cli.tables.shared import new_table
from cleanctl.results import PromptCheck, PromptListing, PromptsWritten, ShippedSets

SHOWN_FINDINGS = 20


def sets_table(record: ShippedSets) -> list[Any]:
    table = new_table("Prompt sets", "name", "classes", "prompts a class")
    for one in record.sets:
        table.add_row(escape(one.name), f"{one.classes:,}" if one.classes else "any", f"{one.prompts:,}")
    return [table, "Their sentences: cleanctl prompts show NAME"]


def prompt_lines(record: PromptListing) -> list[Any]:
    lines: list[Any] = [Text(f"{record.name}  ({record.file})", style="dim")]
    for one in record.classes:
        lines.append(Text(one.name, style="bold"))
        lines += [Text(f"  {sentence}") for sentence in one.prompts]
    return [*lines, *(Text(note, style="dim") for note in record.notes)]


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
    counts = f"{record.classes:,} classes, {record.prompts:,} sentences"
    warnings = len(record.findings) - record.errors
    lines.append(Text(f"{record.name}: {counts}, {record.errors:,} errors, {warnings:,} warnings."))
    return lines


def written_lines(record: PromptsWritten) -> list[Any]:
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
