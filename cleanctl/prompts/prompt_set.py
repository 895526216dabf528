"""The sentences that stand for each class (docs/method.md A.2), and the files they come from.

In: a name or a file, and the class names. Out: a `PromptSet`: P prompts and the class of each. Nothing is written.

A prompt file is TOML or JSON:

    template = "a photo of a {name} {phrase}{suffix}"   # for [phrases]; this is the default
    suffix = ", a type of animal."                      # default "."
    names = "keep"                                      # or "spaces": underscores of class names become spaces
    equal = true                                        # cut every class to the smallest count (default)
    templates = ["a photo of a {name}.", ...]           # sentences for every class, or
    [phrases]                                           # features of each class, or
    cat = ["which has whiskers", ...]
    [prompts]                                           # whole sentences for each class
    cat = ["a tabby asleep on a sofa."]
"""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from cleanctl.errors import InputError

SETS = Path(__file__).parent / "sets"
TEMPLATE = "a photo of a {name} {phrase}{suffix}"
PLAIN = "a photo of a {name}{suffix}"
# Generic sentences for classes whose features nobody has described.
ENSEMBLE = (
    "a photo of a {name}{suffix}",
    "a close-up photo of a {name}{suffix}",
    "a blurry photo of a {name}{suffix}",
    "a bright photo of a {name}{suffix}",
    "a dark photo of a {name}{suffix}",
    "a cropped photo of a {name}{suffix}",
    "a photo of a small {name}{suffix}",
    "a photo of a large {name}{suffix}",
)
BUILT_IN = ("features", "ensemble", "photo")
_KEYS = {"template", "suffix", "names", "equal", "templates", "phrases", "prompts"}


@dataclass(frozen=True, kw_only=True)
class PromptSet:
    """P prompts in class order. class_P: int32 (P,), 0…C-1, every class present. digest: SHA-256 over both."""

    name: str
    prompts: tuple[str, ...]
    class_P: np.ndarray
    digest: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class _File:
    """A prompt file, read and checked for form, not yet for its classes."""

    origin: str
    template: str = TEMPLATE
    suffix: str = "."
    names: str = "keep"
    equal: bool = True
    templates: tuple[str, ...] = ()
    phrases: Mapping[str, tuple[str, ...]] | None = None
    prompts: Mapping[str, tuple[str, ...]] | None = None


def resolve_prompts(name: str, classes: Sequence[str]) -> PromptSet:
    """`--prompts NAME|FILE` for these classes.

    `features` takes the shipped feature phrases if a shipped file knows every class, else `ensemble`, and a note says
    which. Raises InputError for an unknown name, a malformed file, or classes the file does not cover.
    """
    if name == "photo":
        return _build("photo", _File(origin="photo", templates=(PLAIN,), names="spaces"), classes)
    if name == "ensemble":
        return _build("ensemble", _File(origin="ensemble", templates=ENSEMBLE, names="spaces"), classes)
    if name == "features":
        return _features(classes)
    path = Path(name).expanduser()
    if not path.is_file():
        raise InputError(
            f"--prompts is {name!r}: neither a file nor one of {', '.join(BUILT_IN)}.", do="Check the path."
        )
    return _build(path.name, _read(path), classes)


def _features(classes: Sequence[str]) -> PromptSet:
    for path in sorted(SETS.glob("*.toml")):
        file = _read(path)
        if file.phrases is not None and {_key(name) for name in classes} <= {_key(name) for name in file.phrases}:
            return _build(f"features:{path.stem}", file, classes)
    plain = resolve_prompts("ensemble", classes)
    count = len(ENSEMBLE)
    note = (
        f"No feature phrases are shipped for these classes: {count} plain sentences a class are used; "
        "describe your classes in a file and give it with --prompts FILE."
    )
    return replace(plain, notes=(note, *plain.notes))


# ---- files


def _read(path: Path) -> _File:
    try:
        text = path.read_text(encoding="utf-8")
        values = json.loads(text) if path.suffix.lower() == ".json" else tomllib.loads(text)
    except (OSError, ValueError) as exc:
        raise InputError(f"The prompt file {path} cannot be read: {exc}.", do="It must be TOML or JSON.") from exc
    if not isinstance(values, dict) or not (values.keys() & {"templates", "phrases", "prompts"}):
        raise InputError(f"{path} has none of templates, [phrases], [prompts].", do="Add one of them.")
    if unknown := sorted(values.keys() - _KEYS):
        raise InputError(
            f"{path} has unknown entries: {', '.join(unknown)}.", do=f"Known are: {', '.join(sorted(_KEYS))}."
        )
    return _checked(path, values)


def _checked(path: Path, values: dict[str, Any]) -> _File:
    texts = {key: values[key] for key in ("template", "suffix", "names") if key in values}
    if not all(isinstance(text, str) for text in texts.values()) or texts.get("names", "keep") not in (
        "keep",
        "spaces",
    ):
        raise InputError(f"{path}: template, suffix and names must be text (names: keep or spaces).", do="Mend it.")
    file = _File(
        origin=str(path),
        equal=bool(values.get("equal", True)),
        templates=_sentences(path, "templates", values.get("templates", [])),
        phrases=_table(path, "phrases", values.get("phrases")),
        prompts=_table(path, "prompts", values.get("prompts")),
        **texts,
    )
    for template in (*file.templates, *([file.template] if file.phrases else [])):
        _fill(template, path, name="x", phrase="x", suffix=".")
    return file


def _table(path: Path, name: str, table: Any) -> dict[str, tuple[str, ...]] | None:
    if table is None:
        return None
    if not isinstance(table, dict):
        raise InputError(f"{path}: [{name}] is not a table of classes.", do="Write: class = [sentences].")
    return {str(key): _sentences(path, f"{name}.{key}", value) for key, value in table.items()}


def _sentences(path: Path, where: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(item, str) and item.strip() for item in value):
        raise InputError(f"{path}: {where} is not a list of sentences.", do='Write: ["...", "..."].')
    if len(set(value)) != len(value):
        raise InputError(f"{path}: {where} says the same thing twice.", so="It would count double.", do="Remove one.")
    return tuple(value)


def _fill(template: str, path: Path | str, **parts: str) -> str:
    try:
        return template.replace("{}", "{name}").format(**parts)
    except (KeyError, IndexError, ValueError, AttributeError) as exc:
        raise InputError(
            f"{path}: the template {template!r} cannot be filled: {exc}.",
            do="It may hold {name}, {phrase} and {suffix}.",
        ) from exc


# ---- from a file to prompts


def _build(name: str, file: _File, classes: Sequence[str]) -> PromptSet:
    notes = list(_cover(file, classes))
    lists = [_prompts_of(file, label) for label in classes]
    smallest, largest = min(map(len, lists)), max(map(len, lists))
    if smallest == 0:
        empty = [label for label, prompts in zip(classes, lists) if not prompts]
        raise InputError(f"{file.origin} has no prompts for {_list(empty)}.", do="Give each class at least one.")
    if smallest != largest and file.equal:
        # Sums over prompts favour a class that has more of them: 8 against 5 is 0.033 of cosine (docs/method.md F.1).
        lists = [prompts[:smallest] for prompts in lists]
        notes.append(f"Classes have {smallest} to {largest} prompts: the first {smallest} of each are used.")
    notes += _wordless(classes)
    prompts = tuple(prompt for part in lists for prompt in part)
    class_P = np.repeat(np.arange(len(classes), dtype=np.int32), [len(part) for part in lists])
    text = json.dumps([[classes[k], prompt] for k, prompt in zip(class_P.tolist(), prompts)])
    digest = hashlib.sha256(text.encode()).hexdigest()
    return PromptSet(name=name, prompts=prompts, class_P=class_P, digest=digest, notes=tuple(notes))


def _prompts_of(file: _File, label: str) -> list[str]:
    """docs/method.md A.2: the lower-cased class name, its underscores kept unless the file says otherwise."""
    name = label.lower().replace("_", " ") if file.names == "spaces" else label.lower()
    filled = [_fill(template, file.origin, name=name, phrase="", suffix=file.suffix) for template in file.templates]
    for phrase in _of_class(file.phrases, label):
        filled.append(_fill(file.template, file.origin, name=name, phrase=phrase, suffix=file.suffix))
    return [*filled, *_of_class(file.prompts, label)]


def _of_class(table: Mapping[str, tuple[str, ...]] | None, label: str) -> tuple[str, ...]:
    found = {_key(name): value for name, value in (table or {}).items()}
    return found.get(_key(label), ())


def _key(name: str) -> str:
    """Class names that differ in case, underscores or dashes alone are the same class."""
    return re.sub(r"[\s_-]+", " ", name.strip().lower())


def _cover(file: _File, classes: Sequence[str]) -> list[str]:
    """Every class must be described; descriptions of other classes are noted."""
    tables = [table for table in (file.phrases, file.prompts) if table is not None]
    described = {_key(name): name for table in tables for name in table}
    unknown = [name for key, name in described.items() if key not in {_key(label) for label in classes}]
    missing = [label for label in classes if _key(label) not in described]
    if tables and missing and not file.templates:
        others = f" It describes {_list(unknown)}, which the dataset does not have." if unknown else ""
        raise InputError(
            f"{file.origin} has no prompts for {len(missing)} of {len(classes)} classes: {_list(missing)}.{others}",
            so="Every class needs prompts.",
            do="Add them, or use --prompts ensemble.",
        )
    if not unknown or Path(file.origin).parent == SETS:  # shipped sets are made for more than one dataset
        return []
    return [f"{file.origin} also describes {_list(unknown)}, which the dataset does not have."]


def _wordless(classes: Sequence[str]) -> list[str]:
    """Names that a text encoder cannot know."""
    bare = [name for name in classes if re.fullmatch(r"(n\d{8}|\d+)", name)]
    if not bare:
        return []
    return [f"Class names like {_list(bare[:3])} say nothing to a text encoder: name the classes with --classes FILE."]


def _list(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:8])
    return shown + (f" and {len(names) - 8} more" if len(names) > 8 else "")
