"""A client of the chat-completions protocol that OpenAI's and compatible services speak: one POST a question.

The standard library's urllib is enough for that (no streams, no pools, no uploads), so no package is added. What it
does by itself and must not here: it follows redirects with the key in the header. A redirect is an error.
The key goes into the Authorization header alone; it is cut out of whatever a service says before that is shown.
"""

from __future__ import annotations

import email.utils
import http.client
import json
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from cleanctl import __version__
from cleanctl.errors import InputError
from cleanctl.progress import SILENT, Progress

MOST_BYTES = 4 << 20  # of an answer
BUSY = (408, 429, 500, 502, 503, 504, 529)  # statuses after which the same request may succeed
FIRST_WAIT, LONGEST_WAIT = 1.0, 300.0  # seconds


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


@dataclass(frozen=True, kw_only=True)
class ChatService:
    """url: base of the API (…/v1), or the whole address that ends in /chat/completions. key: None sends none.

    timeout: seconds without a byte. retries: how often a busy or failing service is asked again.
    """

    url: str
    llm: str
    key: str | None = field(default=None, repr=False)
    key_variable: str
    timeout: float
    retries: int
    progress: Progress = SILENT

    def __post_init__(self) -> None:
        if self.key is not None and not (self.key.isascii() and self.key.isprintable() and self.key.strip()):
            raise InputError(
                f"${self.key_variable} holds no key: it is blank or has characters that a header cannot carry.",
                do="Set it to the key alone, without a line break.",
            )

    @property
    def address(self) -> str:
        base = self.url.rstrip("/")
        return base if base.endswith("/chat/completions") else f"{base}/chat/completions"

    def ask(self, messages: Sequence[dict[str, str]]) -> str:
        """The text of the answer. Raises InputError with what the service said, and what to do about it."""
        body = json.dumps({"model": self.llm, "messages": list(messages)}).encode()
        for attempt in range(self.retries + 1):
            status, said, wait = self._post(body)
            if status == 200:
                return self._text_of(said)
            if status not in BUSY or attempt == self.retries:
                raise self._refused(status, said, tried=attempt + 1)
            seconds = wait if wait is not None else min(FIRST_WAIT * 2**attempt, LONGEST_WAIT)
            if seconds > LONGEST_WAIT:
                raise InputError(
                    f"{self.address} asks for a wait of {seconds:,.0f} s ({status}).",
                    so="The answers so far are kept.",
                    do="Run the same command again later.",
                )
            self.progress.note(f"The service answered {status}; the next try is in {seconds:.1f} s.")
            time.sleep(seconds)
        raise AssertionError("the loop returns or raises")

    def _post(self, body: bytes) -> tuple[int, bytes, float | None]:
        """(status, body, seconds of Retry-After) of one request; InputError where none came."""
        headers = {"Content-Type": "application/json", "User-Agent": f"cleanctl/{__version__}"}
        if self.key is not None:
            headers["Authorization"] = f"Bearer {self.key}"
        request = urllib.request.Request(self.address, data=body, headers=headers)
        opener = urllib.request.build_opener(_NoRedirects)
        try:
            with opener.open(request, timeout=self.timeout) as response:
                return response.status, response.read(MOST_BYTES + 1), None
        except urllib.error.HTTPError as exc:
            with exc:
                return exc.code, exc.read(MOST_BYTES), retry_after(exc.headers.get("Retry-After"), now=time.time())
        except TimeoutError as exc:
            raise self._silent() from exc
        except urllib.error.URLError as exc:
            if isinstance(exc.reason, TimeoutError):
                raise self._silent() from exc
            raise self._unreachable(exc.reason) from exc
        except (http.client.HTTPException, OSError) as exc:
            raise self._unreachable(exc) from exc

    def _silent(self) -> InputError:
        return InputError(
            f"{self.address} gave no answer within {self.timeout:g} s.",
            so="The answers so far are kept.",
            do="Run the same command again, or wait longer with --timeout.",
        )

    def _unreachable(self, reason: object) -> InputError:
        what = "the host is unknown" if isinstance(reason, socket.gaierror) else str(reason) or type(reason).__name__
        return InputError(
            f"{self.address} cannot be reached: {self._without_key(what)[:300]}.",
            so="The answers so far are kept.",
            do="Check --endpoint, then run the same command again.",
        )

    def _refused(self, status: int, body: bytes, *, tried: int) -> InputError:
        remedies = {
            401: f"Put the service's key into ${self.key_variable}." if self.key is None
            else f"Check the key in ${self.key_variable}.",
            403: f"Check what the key in ${self.key_variable} may do.",
            404: f"Check --endpoint (it is the base of the API, usually ending in /v1) and --llm {self.llm}.",
        }  # fmt: skip
        if 300 <= status < 400:
            remedy = "Give the address that it redirects to: the key is not sent on to another one."
        else:
            busy = "Run the same command again later." if status in BUSY else "Check --endpoint and --llm."
            remedy = remedies.get(status, busy)
        times = f" {tried} times" if tried > 1 else ""
        return InputError(
            f"{self.address} answered {status}{times}{self._said(body)}.", so="The answers so far are kept.", do=remedy
        )

    def _said(self, body: bytes) -> str:
        """`: ` and the message of an error body, the key cut out; nothing where there is none."""
        text = body.decode(errors="replace")
        try:
            error = json.loads(text)["error"]
            text = str(error["message"] if isinstance(error, dict) else error)
        except (ValueError, KeyError, TypeError, RecursionError):
            pass  # shown as it came
        text = " ".join(self._without_key(text).split())[:200].rstrip(".")
        return f": {text}" if text else ""

    def _text_of(self, body: bytes) -> str:
        """The first choice's text. InputError where the answer is not one of this protocol."""
        remedy = "Check that --endpoint is the base of an OpenAI-compatible API."
        if len(body) > MOST_BYTES:
            raise InputError(f"{self.address} answered with more than {MOST_BYTES >> 20} MB.", do=remedy)
        try:
            text = json.loads(body)["choices"][0]["message"]["content"]
        except (ValueError, LookupError, TypeError, RecursionError) as exc:
            raise InputError(
                f"The answer of {self.address} is no chat completion{self._said(body)}.", do=remedy
            ) from exc
        return text if isinstance(text, str) else ""

    def _without_key(self, text: str) -> str:
        return text if self.key is None else text.replace(self.key, "…")


def retry_after(value: str | None, *, now: float) -> float | None:
    """Seconds that a Retry-After header asks for: a number, or a date; None where it says neither."""
    if value is None:
        return None
    try:
        return max(float(int(value)), 0.0)
    except ValueError:
        pass  # a date, then
    try:
        return max(email.utils.parsedate_to_datetime(value).timestamp() - now, 0.0)
    except ValueError:
        return None
