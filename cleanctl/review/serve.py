"""`review serve`: the report's page on this machine alone, where every verdict is stored as it is given.

Only the loopback address is listened on. Every address begins with a random token, which no other page can guess; the
Host header has to name this server, against names that are made to point here, and a request that another site's page
makes is refused by its Origin. What is served is the page, images of known rows and verdicts; what is taken is a
verdict, at most BODY_BYTES of JSON. Ctrl-C ends it; nothing is lost at any end, because nothing waits.
"""

from __future__ import annotations

import hmac
import json
import secrets
import tempfile
import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast

from cleanctl.config import ReportConfig, ReviewServeConfig
from cleanctl.errors import CleanctlError, InputError, UsageError
from cleanctl.progress import SILENT, Progress
from cleanctl.records import Storage
from cleanctl.report.write import write_report
from cleanctl.results import ReviewServed
from cleanctl.review.desk import Desk, Refused
from cleanctl.runtime import stop_requests
from cleanctl.store import Store

ADDRESS = "127.0.0.1"
BODY_BYTES = 65_536
TIMEOUT_SECONDS = 30.0  # of a request that does not go on
AT_ONCE = 16  # requests; a browser opens six connections
TOKEN_BYTES = 24
SAFE_HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",  # the address holds the token
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}


def serve(
    store: Store,
    config: ReviewServeConfig,
    *,
    files: Storage | None,
    ready: Callable[[str], None],
    progress: Progress = SILENT,
) -> ReviewServed:
    """Serves until SIGINT or SIGTERM. ready: called once with the page's address, when it answers.

    files: where the images are, None where they are not. Raises StoreError without a selection to show, UsageError
    where the port is taken.
    """
    split = store.split(config.split)
    desk = Desk(split, store.classes, files, config.by)
    # The port first: the page takes a while, and who asks before it is there waits for it.
    with ReviewServer(desk, config.port) as server, stop_requests() as stop:
        with tempfile.TemporaryDirectory(prefix="cleanctl-review-") as folder:
            page = Path(folder) / "page.html"
            shown = ReportConfig(selection=config.selection, split=config.split)
            write_report(store, shown, out=page, files=files, progress=progress)
            server.page = page.read_bytes()
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
        thread.start()
        ready(server.url)
        while not stop and thread.is_alive():
            thread.join(0.2)
        server.shutdown()
        thread.join()
    return ReviewServed(split=split.name, taken=desk.taken, place=str(desk.place))


class ReviewServer(ThreadingHTTPServer):
    """desk: what is behind it. page: the HTML, to be set before it serves. port: 0 for any that is free."""

    daemon_threads = True
    allow_reuse_address = True

    page = b""

    def __init__(self, desk: Desk, port: int) -> None:
        self.desk = desk
        self.token = secrets.token_urlsafe(TOKEN_BYTES)
        self.room = threading.BoundedSemaphore(AT_ONCE)
        try:
            super().__init__((ADDRESS, port), Handler)
        except OSError as exc:
            raise UsageError(
                f"Port {port} cannot be used: {exc.strerror}.", do="Choose another --port; 0 takes a free one."
            ) from exc

    @property
    def url(self) -> str:
        return f"http://{ADDRESS}:{self.server_port}/{self.token}/"

    @property
    def hosts(self) -> tuple[str, ...]:
        return f"{ADDRESS}:{self.server_port}", f"localhost:{self.server_port}"

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        with self.room:
            super().process_request_thread(request, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that goes away in the middle of an answer is no error of ours; nothing is printed."""


class Handler(BaseHTTPRequestHandler):
    """One connection. Whatever is not right gets a short answer that tells nothing of what is here."""

    server_version = "cleanctl"
    sys_version = ""
    timeout = TIMEOUT_SECONDS

    @property
    def _server(self) -> ReviewServer:
        return cast(ReviewServer, self.server)

    def do_GET(self) -> None:
        place = self._place()
        if place is None:
            return
        if place == "":
            self._answer(HTTPStatus.OK, self._server.page, "text/html; charset=utf-8")
        elif place == "api/verdicts":
            self._tell({"verdicts": self._server.desk.verdicts(), "by": self._server.desk.by})
        elif place.startswith("image/"):
            self._image(place.removeprefix("image/"))
        else:
            self._refuse(HTTPStatus.NOT_FOUND)

    def do_POST(self) -> None:
        place = self._place()
        if place is None:
            return
        if place != "api/verdict":
            self._refuse(HTTPStatus.NOT_FOUND)
        elif self.headers.get_content_type() != "application/json":
            self._refuse(HTTPStatus.UNSUPPORTED_MEDIA_TYPE)
        elif (body := self._body()) is not None:
            self._take(body)

    # ---- who asks, and for what

    def _place(self) -> str | None:
        """What is asked for, below the token; None where the request was refused."""
        server = self._server
        if self.headers.get("Host", "") not in server.hosts or not self._is_own_page():
            self._refuse(HTTPStatus.FORBIDDEN)
            return None
        token, slash, place = self.path.removeprefix("/").partition("/")
        if not slash or not hmac.compare_digest(token.encode("latin-1", "replace"), server.token.encode()):
            self._refuse(HTTPStatus.NOT_FOUND)
            return None
        return place

    def _is_own_page(self) -> bool:
        """Whether the request is of our page, of a person, or of a program; not of another site's page."""
        origin = self.headers.get("Origin")
        own = origin is None or origin in [f"http://{host}" for host in self._server.hosts]
        return own and self.headers.get("Sec-Fetch-Site", "none") in ("none", "same-origin")

    def _body(self) -> bytes | None:
        length = self.headers.get("Content-Length", "")
        if not length.isascii() or not length.isdecimal() or "Transfer-Encoding" in self.headers:
            self._refuse(HTTPStatus.LENGTH_REQUIRED)
            return None
        if len(length) > 9 or int(length) > BODY_BYTES:
            self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
            return None
        return self.rfile.read(int(length))

    # ---- what is done

    def _take(self, body: bytes) -> None:
        try:
            contradicts = self._server.desk.take(json.loads(body))
        except (ValueError, RecursionError):
            self._refuse(HTTPStatus.BAD_REQUEST, "This is no JSON.")
        except InputError as exc:
            self._refuse(HTTPStatus.BAD_REQUEST, str(exc))
        except Refused as exc:
            self._refuse(HTTPStatus.CONFLICT, str(exc))
        except CleanctlError as exc:
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, str(exc))
        else:
            self._tell({"stored": True, "contradicts": contradicts})

    def _image(self, text: str) -> None:
        row = int(text) if text.isascii() and text.isdecimal() and len(text) <= 10 else -1
        jpeg = self._server.desk.image(row)
        if jpeg is None:
            self._refuse(HTTPStatus.NOT_FOUND)
        else:
            self._answer(HTTPStatus.OK, jpeg, "image/jpeg")

    # ---- answers

    def _tell(self, values: dict[str, Any]) -> None:
        self._answer(HTTPStatus.OK, json.dumps(values).encode("ascii"), "application/json")

    def _refuse(self, status: HTTPStatus, why: str = "") -> None:
        self.close_connection = True  # what is left of the request is not read
        self._answer(status, (why or status.phrase).encode("utf-8", "replace"), "text/plain; charset=utf-8")

    def _answer(self, status: HTTPStatus, body: bytes, kind: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), **SAFE_HEADERS}.items():
            self.send_header(name, value)
        self.end_headers()
        try:
            self.wfile.write(body)
        except (TimeoutError, ConnectionError):
            self.close_connection = True

    def log_message(self, format: str, *values: Any) -> None:
        """Nothing is logged: addresses hold the token."""
