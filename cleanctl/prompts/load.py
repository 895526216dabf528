"""Prompt files: TOML or JSON → a checked `PromptFile`. The package's own are in sets/, one file a set.

template = "a photo of a {name} {phrase}{suffix}"   # for [phrases]; this is the default
suffix = ", a type of animal."                      # default "."
names = "keep"                                      # or "spaces": underscores of class names become spaces
equal = true                                        # cut every class to the smallest count (default)
templates = ["a photo of a {name}.", ...]           # sentences for every class ({} is {name} too), or
[phrases]                                           # features of each class, or
cat = ["which has whiskers", ...]
[prompts]                                           # whole sentences for each class
cat = ["a tabby asleep on a sofa."]
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from cleanctl.errors import InputError
from cleanctl.user_files import checked

SETS = Path(__file__).parent / "sets"
_FIELD = re.compile(r"\{[^{}]*\}|[{}]")
_KNOWN = {"{}": "name", "{name}": "name", "{phrase}": "phrase", "{suffix}": "suffix"}


@dataclass(frozen=True, kw_only=True)
class PromptFile:
    """A prompt file, checked for everything but its classes, which a dataset knows."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    template: str = "a photo of a {name} {phrase}{suffix}"
    suffix: str = "."
    names: Literal["keep", "spaces"] = "keep"
    equal: bool = True
    templates: tuple[str, ...] = ()
    phrases: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    prompts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def load_prompts(path: Path, *, repeats: bool = False) -> PromptFile:
    """Raises InputError that names what is wrong: the form of the file, a field, a sentence.

    repeats: whether a class may hold a sentence twice, and none at all, which `cleanctl prompts check` tells itself.
    """
    try:
        text = path.read_text(encoding="utf-8")
        values = json.loads(text) if path.suffix.lower() == ".json" else tomllib.loads(text)
    except (OSError, ValueError) as exc:
        raise InputError(f"The prompt file {path} cannot be read: {exc}.", do="It must be TOML or JSON.") from exc
    except RecursionError as exc:
        raise InputError(f"The prompt file {path} is nested too deeply.", do="Give lists of sentences.") from exc
    file = checked(f"The prompt file {path}", values, PromptFile)
    if not (file.templates or file.phrases or file.prompts):
        raise InputError(f"{path} has none of templates, [phrases], [prompts].", do="Add one of them.")
    _check_sentences(path, "templates", file.templates, repeats)
    for name, table in (("phrases", file.phrases), ("prompts", file.prompts)):
        _check_classes(path, name, table)
        for label, sentences in table.items():
            _check_sentences(path, f"{name}.{label}", sentences, repeats)
    for template in (file.template, *file.templates):
        if unknown := [found for found in _FIELD.findall(template) if found not in _KNOWN]:
            raise InputError(
                f"{path}: the template {template[:200]!r} holds {unknown[0][:80]!r}.",
                do="In braces it may hold name, phrase and suffix.",
            )
    return file


def fill(template: str, *, name: str, phrase: str, suffix: str) -> str:
    """A checked template with its fields replaced, and nothing else evaluated."""
    values = {"name": name, "phrase": phrase, "suffix": suffix}
    return _FIELD.sub(lambda found: values[_KNOWN[found.group()]], template)


def class_key(name: str) -> str:
    """Class names that differ in case, underscores or dashes alone are the same class."""
    return re.sub(r"[\s_-]+", " ", name.strip().lower())


def _check_sentences(path: Path, where: str, sentences: tuple[str, ...], repeats: bool) -> None:
    seen: set[str] = set()
    for sentence in sentences:
        if not sentence.strip():
            raise InputError(f"{path}: {where} holds an empty sentence.", do="Remove it, or fill it in.")
        if sentence in seen and not repeats:
            raise InputError(
                f"{path}: {where} holds {sentence[:200]!r} twice.", so="It would count double.", do="Remove one."
            )
        seen.add(sentence)


def _check_classes(path: Path, where: str, table: Mapping[str, tuple[str, ...]]) -> None:
    names: dict[str, str] = {}
    for name in table:
        other = names.setdefault(class_key(name), name)
        if other != name:
            raise InputError(
                f"{path}: [{where}] describes {other!r} and {name!r}, which are the same class.",
                do="Join the two lists.",
            )
