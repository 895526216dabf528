"""A `PromptFile` → TOML or JSON text that `load_prompts` reads back as the same; commits it to disk atomically.

The standard library reads TOML and does not write it; a prompt file needs text, lists of text and two tables only.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from cleanctl.files.atomic import write_file
from cleanctl.prompts.load import PromptFile

_DEFAULT = PromptFile()


def save_prompts(path: Path, file: PromptFile) -> None:
    """Writes `path` (.json or TOML) whole or not at all; raises StoreError if the disk refuses."""
    write_file(path, (to_json(file) if path.suffix.lower() == ".json" else to_toml(file)).encode())


def to_json(file: PromptFile) -> str:
    return json.dumps(asdict(file), indent=1, ensure_ascii=False) + "\n"


def to_toml(file: PromptFile) -> str:
    """Fields that differ from their defaults, then the tables, a sentence a line."""
    lines = [f"template = {_text(file.template)}", f"suffix = {_text(file.suffix)}"]
    if file.names != _DEFAULT.names:
        lines.append(f"names = {_text(file.names)}")
    if file.equal != _DEFAULT.equal:
        lines.append(f"equal = {str(file.equal).lower()}")
    if file.templates:
        lines.append(f"templates = {_list(file.templates)}")
    for name, table in (("phrases", file.phrases), ("prompts", file.prompts)):
        if table:
            lines += ["", f"[{name}]", *_table(table)]
    return "\n".join(lines) + "\n"


def _table(table: Mapping[str, tuple[str, ...]]) -> list[str]:
    return [f"{_key(name)} = {_list(sentences)}" for name, sentences in table.items()]


def _list(sentences: tuple[str, ...]) -> str:
    return "".join(["[\n", *(f"    {_text(sentence)},\n" for sentence in sentences), "]"])


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _text(name)


def _text(value: str) -> str:
    """A basic string: JSON's escapes are TOML's too, and TOML also wants DEL escaped."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
