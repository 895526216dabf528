"""Options of `cleanctl prompts show`, `check` and `write`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cleanctl.config.option import REQUIRED, Config, option
from cleanctl.config.shared import Device, Precision, device_option, precision_option
from cleanctl.errors import UsageError

ALIKE = 0.95  # cosine from which two classes' mean prompt embeddings are told as almost alike
KEY_VARIABLE = "CLEANCTL_API_KEY"
TIMEOUT, RETRIES = 120.0, 5


def _set_option() -> Any:
    return option(REQUIRED, "A prompt set by name, or a file of prompts by class.", flag="SET")


def _classes_option() -> Any:
    help = "Class names in label order, a name a line (default: the classes that the set describes)."
    return option(None, help, metavar="FILE")


@dataclass(frozen=True, kw_only=True)
class PromptsShowConfig(Config):
    prompts: str = _set_option()
    classes: Path | str | None = _classes_option()
    only: tuple[str, ...] = option((), "A class to show; may repeat (default: all).", flag="--class")


@dataclass(frozen=True, kw_only=True)
class PromptsCheckConfig(Config):
    prompts: str = _set_option()
    classes: Path | str | None = _classes_option()
    alike: float = option(ALIKE, "Tell pairs of classes from this cosine on.", "Model", low=-1, high=1)
    model: str | None = option(
        None, "The model whose tokenizer and embeddings judge: an open_clip architecture, or local-dir:DIR.", "Model"
    )
    pretrained: str | None = option(None, "Its weights: an open_clip tag or a file.", "Model")
    download: bool = option(False, "Fetch weights that are not on this disk.", "Model")
    device: Device = device_option()
    precision: Precision = precision_option()

    def refuse_contradictions(self) -> None:
        given = {
            "--alike": self.alike != ALIKE,
            "--pretrained": self.pretrained is not None,
            "--download": self.download,
            "--device": self.device != "auto",
            "--precision": self.precision != "auto",
        }
        _refuse(given, unless=self.model is not None, mode="--model", so="Without a model nothing is embedded.")


def require_endpoint(flag: str, url: str) -> None:
    """UsageError unless `url` is the address of an HTTP service without a secret in it."""
    parts = urlsplit(url)
    wrong = ""
    if parts.scheme not in ("http", "https") or not parts.hostname:
        wrong = "is no http:// or https:// address"
    elif parts.username is not None or parts.password is not None:
        wrong, url = "holds a user name or password", f"{parts.scheme}://…@{parts.hostname}"
    elif parts.query or parts.fragment:
        wrong, url = "holds a query", url.partition("?")[0].partition("#")[0]
    elif not url.isascii() or re.search(r"[\s\x00-\x1f\x7f]", url):
        wrong = "holds characters that an address cannot have"
    if wrong:
        raise UsageError(
            f"{flag} is {url!r}, which {wrong}.",
            do=f"Give the base of the API, e.g. https://host/v1, and the key in ${KEY_VARIABLE}.",
        )


def require_variable(flag: str, name: str) -> None:
    """UsageError unless `name` can be that of an environment variable; it is not quoted, since it may be a key."""
    if not re.fullmatch(r"[A-Z_][A-Z0-9_]{0,99}", name):
        raise UsageError(f"{flag} is no name of an environment variable.", do=f"Give its name, e.g. {KEY_VARIABLE}.")


@dataclass(frozen=True, kw_only=True)
class PromptsWriteConfig(Config):
    out: Path = option(REQUIRED, "The prompt file to write, or to go on with (.toml or .json).", flag="FILE")
    classes: Path | str = option(REQUIRED, "Class names, a name a line.", metavar="FILE")
    features: int = option(8, "Features of each class.", low=1, high=64)
    about: str = option("", "What the images show and where they are from, in a sentence.", metavar="TEXT")
    look_alikes: tuple[str, ...] = option(
        (), "Classes to be told apart by their difference, with | or commas between them; may repeat.", metavar="A|B|…"
    )
    suffix: str | None = option(None, "What ends each sentence, e.g. ', a type of clothes.'.", metavar="TEXT")
    endpoint: str | None = option(
        None, "Ask this OpenAI-compatible service.", "Ask a service", metavar="URL", check=require_endpoint
    )
    llm: str | None = option(None, "The language model that the service is to use.", "Ask a service", metavar="NAME")
    key_variable: str = option(
        KEY_VARIABLE,
        "The environment variable that holds the service's key, if it wants one.",
        "Ask a service",
        metavar="NAME",
        check=require_variable,
    )
    timeout: float = option(TIMEOUT, "Seconds to wait for an answer.", "Ask a service", above=0, high=3600)
    retries: int = option(
        RETRIES, "How often to try again if the service is busy or fails.", "Ask a service", low=0, high=100
    )
    print_request: bool = option(
        False, "Print the request for what is missing, to be pasted into a chat.", "Ask by hand", flag="--print"
    )
    answers: Path | None = option(None, "Read a pasted answer to the printed request.", "Ask by hand", metavar="FILE")

    def refuse_contradictions(self) -> None:
        ways = {
            "--endpoint": self.endpoint is not None,
            "--print": self.print_request,
            "--answers": self.answers is not None,
        }
        chosen = [name for name, on in ways.items() if on]
        if len(chosen) != 1:
            raise UsageError(
                f"{' and '.join(chosen)} were given together." if chosen else "Nothing says who is to be asked.",
                do="Give one: --endpoint URL asks a service, --print is for a chat, --answers FILE reads its answer.",
            )
        given = {
            "--llm": self.llm is not None,
            "--key-variable": self.key_variable != KEY_VARIABLE,
            "--timeout": self.timeout != TIMEOUT,
            "--retries": self.retries != RETRIES,
        }
        _refuse(given, unless=self.endpoint is not None, mode="--endpoint", so="Without it nothing is sent.")
        if self.endpoint is not None and not self.llm:
            raise UsageError("--endpoint was given without --llm.", do="Name the model: --llm NAME")
        if self.out.suffix.lower() not in (".toml", ".json"):
            raise UsageError(f"FILE is {str(self.out)!r}.", do="Give a name that ends in .toml or .json.")


def _refuse(given: dict[str, bool], *, unless: bool, mode: str, so: str) -> None:
    """UsageError for options that the mode ignores."""
    extra = [name for name, on in given.items() if on]
    if extra and not unless:
        raise UsageError(f"{', '.join(extra)} was given without {mode}.", so=so, do=f"Leave it out, or add {mode}.")
