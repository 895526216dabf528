"""`cleanctl prompts write`: a language model describes each class, and its phrases become a prompt file.

The file is the state: after each class it is committed with that class's phrases, so that a run that ends anywhere,
by Ctrl-C too, goes on with the classes that are missing. Nothing is sent anywhere but to `--endpoint`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

from cleanctl.config import PromptsWriteConfig
from cleanctl.datasets.columns import read_classes
from cleanctl.errors import InputError
from cleanctl.progress import SILENT, Progress
from cleanctl.prompts.dump import save_prompts
from cleanctl.prompts.endpoint import ChatService
from cleanctl.prompts.load import PromptFile, class_key, load_prompts
from cleanctl.prompts.request import (
    TEMPLATE,
    Wish,
    answers_by_hand,
    look_alikes_of,
    messages,
    phrases_of,
    request_by_hand,
)
from cleanctl.results.prompts import PromptsWritten

TRIES = 3  # answers of a service to one class, before the class is left out
LOOPBACK = ("localhost", "127.0.0.1", "::1")


def write_prompts(config: PromptsWriteConfig, *, progress: Progress = SILENT) -> PromptsWritten:
    """Asks for what the file lacks, and adds it.

    Raises InputError for a malformed file or class list, a service that refuses or cannot be reached, and answers that
    are not what was asked for; what was answered well is in the file by then.
    """
    classes = read_classes(config.classes)
    wish = Wish(
        features=config.features,
        classes=classes,
        about=" ".join(config.about.split()),
        look_alikes=look_alikes_of(config.look_alikes, classes),
    )
    draft = _Draft.open(config, progress)
    missing = draft.missing(classes, config.features)
    kept = tuple(label for label in classes if label not in missing)
    written: tuple[str, ...] = ()
    request = None
    if config.answers is not None:
        written = _read_answers(config.answers, wish, draft, missing, progress)
    elif config.print_request:
        request = request_by_hand(wish, missing) if missing else ""
    elif missing:
        written = _ask_service(_service(config, progress), wish, draft, missing, progress)
    return PromptsWritten(
        file=str(config.out),
        features=config.features,
        written=written,
        kept=kept,
        missing=tuple(draft.missing(classes, config.features)),
        request=request,
    )


class _Draft:
    """The prompt file so far. `add` commits it."""

    def __init__(self, path: Path, file: PromptFile) -> None:
        self.path, self._file = path, file

    @classmethod
    def open(cls, config: PromptsWriteConfig, progress: Progress) -> _Draft:
        """The file to go on with, else an empty one. Raises InputError where its suffix is not the one asked for."""
        if not config.out.exists():
            return cls(
                config.out, PromptFile(template=TEMPLATE, suffix="." if config.suffix is None else config.suffix)
            )
        file = load_prompts(config.out)
        if config.suffix not in (None, file.suffix):
            raise InputError(
                f"--suffix is {config.suffix!r}, and {config.out} has {file.suffix!r}.",
                do="Leave --suffix out, or change it in the file.",
            )
        if "{phrase}" not in file.template:
            raise InputError(f"The template of {config.out} has no {{phrase}}.", do="Add it, or write another file.")
        if any(line.startswith("#") for line in config.out.read_text(encoding="utf-8").splitlines()):
            progress.warn(f"Comments in {config.out} are not kept when classes are added.")
        return cls(config.out, file)

    def missing(self, classes: tuple[str, ...], features: int) -> list[str]:
        """Classes with fewer phrases than asked for; whole sentences that the file has of one count as well."""
        counts: dict[str, int] = {}
        for table in (self._file.phrases, self._file.prompts):
            for name, sentences in table.items():
                counts[class_key(name)] = counts.get(class_key(name), 0) + len(sentences)
        return [label for label in classes if counts.get(class_key(label), 0) < features]

    def add(self, answers: Mapping[str, tuple[str, ...]]) -> None:
        """The phrases take the place of what the classes had; the file is committed."""
        taken = {class_key(label) for label in answers}
        rest = {name: phrases for name, phrases in self._file.phrases.items() if class_key(name) not in taken}
        self._file = replace(self._file, phrases={**rest, **answers})
        save_prompts(self.path, self._file)


# ---- a service


def _service(config: PromptsWriteConfig, progress: Progress) -> ChatService:
    assert config.endpoint is not None
    assert config.llm is not None
    key = os.environ.get(config.key_variable) or None
    parts = urlsplit(config.endpoint)
    if key is None:
        progress.note(f"${config.key_variable} is not set: no key is sent.")
    elif parts.scheme == "http" and parts.hostname not in LOOPBACK:
        progress.warn(f"The key is sent to {parts.hostname} unencrypted: --endpoint is an http:// address.")
    return ChatService(
        url=config.endpoint,
        llm=config.llm,
        key=key,
        key_variable=config.key_variable,
        timeout=config.timeout,
        retries=config.retries,
        progress=progress,
    )


def _ask_service(
    service: ChatService, wish: Wish, draft: _Draft, missing: list[str], progress: Progress
) -> tuple[str, ...]:
    """Class by class; one that is answered badly TRIES times is told at the end."""
    written, bad = [], {}
    with progress.track(f"Asking {service.llm}", total=len(missing), unit="classes") as task:
        for label in missing:
            try:
                draft.add({label: _ask_class(service, wish, label)})
                written.append(label)
            except ValueError as exc:
                bad[label] = str(exc)
                progress.warn(f"{label}: no usable answer in {TRIES} tries. {exc}")
            task.advance()
    _refuse(bad, f"{service.llm}'s answers", draft, do="Run the same command again, or try another --llm.")
    return tuple(written)


def _ask_class(service: ChatService, wish: Wish, label: str) -> tuple[str, ...]:
    """Raises ValueError with what was wrong with the last answer."""
    chat = messages(wish, label)
    wrong = ValueError()
    for _ in range(TRIES):
        answer = service.ask(chat)
        try:
            return phrases_of(answer, features=wish.features)
        except ValueError as exc:
            wrong = exc
        again = f"That cannot be used. {wrong} Answer with nothing but the JSON list that was asked for."
        chat = [*messages(wish, label), {"role": "assistant", "content": answer}, {"role": "user", "content": again}]
    raise wrong


# ---- by hand


def _read_answers(path: Path, wish: Wish, draft: _Draft, missing: list[str], progress: Progress) -> tuple[str, ...]:
    try:
        text = sys.stdin.read() if str(path) == "-" else path.read_text(encoding="utf-8")
        good, bad = answers_by_hand(text, features=wish.features, classes=wish.classes)
    except OSError as exc:
        raise InputError(f"{path} cannot be read: {exc.strerror or exc}.", do="Check the path.") from exc
    except ValueError as exc:
        raise InputError(
            f"The answer in {path} cannot be used. {exc}",
            so="Nothing of it was taken.",
            do="Keep the JSON object alone, or ask again with the text of --print.",
        ) from exc
    new = {label: phrases for label, phrases in good.items() if label in missing}
    if there := [label for label in good if label not in missing]:
        progress.note(f"{len(there)} classes were described already and stay as they are: {_some(there)}.")
    if new:
        draft.add(new)
    _refuse(bad, f"The answer in {path}", draft, do="Print a request for what is missing, and read its answer.")
    return tuple(new)


def _refuse(bad: Mapping[str, str], whose: str, draft: _Draft, *, do: str) -> None:
    """InputError where answers were bad, after the good ones are kept."""
    if bad:
        told = "; ".join(_lines(bad))
        raise InputError(f"{whose}: {len(bad)} cannot be used. {told}", so=f"The others are in {draft.path}.", do=do)


def _lines(bad: Mapping[str, str]) -> Iterator[str]:
    for name, wrong in list(bad.items())[:5]:
        yield f"{name[:60]}: {wrong}"
    if len(bad) > 5:
        yield f"and {len(bad) - 5} more"


def _some(labels: list[str]) -> str:
    return ", ".join(labels[:5]) + (" …" if len(labels) > 5 else "")
