"""A loopback server that speaks the chat-completions protocol, scripted by a test."""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Reply:
    """What the server sends: a status, headers, and a body (bytes as they are, anything else as JSON)."""

    status: int = 200
    body: object = None
    headers: dict[str, str] = field(default_factory=dict)


def chat(text: object) -> Reply:
    """A well-formed completion whose content is `text` (a list or table as JSON)."""
    content = text if isinstance(text, str) else json.dumps(text)
    message = {"role": "assistant", "content": content}
    return Reply(body={"object": "chat.completion", "choices": [{"index": 0, "message": message}]})


def features(label: str, count: int = 3) -> list[str]:
    return [f"which has {label} part {number}" for number in range(count)]


class Service:
    """requests: (path, headers, body) of each POST. answer: request number and body → Reply."""

    def __init__(self, answer) -> None:
        self.answer = answer
        self.requests: list[tuple[str, dict[str, str], dict]] = []
        self.url = ""

    def asked(self, number: int) -> str:
        """The user's first message of a request."""
        return self.requests[number][2]["messages"][1]["content"]


@contextmanager
def serving(answer):
    """A Service at a free port of this machine for the time of a `with`."""
    service = Service(answer)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            service.requests.append((self.path, dict(self.headers), body))
            reply = service.answer(len(service.requests) - 1, body)
            data = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
            self.send_response(reply.status)
            for name, value in {"Content-Length": str(len(data)), **reply.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    service.url = f"http://127.0.0.1:{server.server_port}/v1"
    try:
        yield service
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
