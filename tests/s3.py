"""A local server that speaks S3, and folders copied into it."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest


class S3:
    """`fill` copies a folder into a new bucket and returns its URL; `requests` are (method, path with query, range)."""

    def __init__(self, system) -> None:
        self.system = system
        self.requests: list[tuple[str, str, str]] = []
        self._count = 0

    def fill(self, folder: Path) -> str:
        self._count += 1
        bucket = f"bucket-{self._count}"
        self.system.mkdir(bucket)
        self.update(f"s3://{bucket}/data", folder)
        return f"s3://{bucket}/data"

    def update(self, url: str, folder: Path) -> None:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                self.system.pipe_file(f"{url}/{path.relative_to(folder).as_posix()}", path.read_bytes())

    def reads(self) -> list[tuple[str, str, str]]:
        """Requests for objects' bytes, not for lists."""
        return [request for request in self.requests if request[0] == "GET" and "list-type" not in request[1]]


@pytest.fixture(scope="session")
def s3_server():
    pytest.importorskip("s3fs")
    server_module = pytest.importorskip("moto.server")
    import fsspec

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        for name, value in (("ACCESS_KEY_ID", "test"), ("SECRET_ACCESS_KEY", "test"), ("DEFAULT_REGION", "us-east-1")):
            patch.setenv(f"AWS_{name}", value)
        yield S3(fsspec.filesystem("s3", skip_instance_cache=True, use_listings_cache=False))
    server.stop()


@pytest.fixture
def s3(s3_server, monkeypatch):
    """The server, with what this test asks of it."""
    from aiohttp import ClientSession

    s3_server.requests = []
    ask = ClientSession._request

    async def noted(self, method, url, **options):
        headers = options.get("headers") or {}
        s3_server.requests.append((method, str(url), str(headers.get("Range", ""))))
        return await ask(self, method, url, **options)

    monkeypatch.setattr(ClientSession, "_request", noted)
    return s3_server
