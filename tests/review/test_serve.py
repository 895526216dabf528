"""`review serve`: who may ask, for what, and that every verdict is in the store when the answer says so."""

from __future__ import annotations

import http.client
import io
import json
import os
import shutil
import signal
import socket
import threading
from urllib.parse import urlsplit

import commands
import numpy as np
import pytest
from PIL import Image

from cleanctl import api
from cleanctl.config import ImportConfig, ReviewServeConfig, SelectConfig
from cleanctl.datasets.source import open_files
from cleanctl.errors import UsageError
from cleanctl.review.desk import Desk
from cleanctl.review.serve import BODY_BYTES, ReviewServer
from cleanctl.store import Store
from cleanctl.store.decisions import Decisions
from cleanctl.store.standing import digest_text

AT = "2026-11-21T10:00:00Z"


@pytest.fixture
def server(embedded, tmp_path):
    """A server of a copy of the store; the page is a line of HTML."""
    shutil.copytree(embedded / "s.zarr", tmp_path / "s.zarr", symlinks=True)
    store = Store.open(tmp_path / "s.zarr")
    desk = Desk(store.split("train"), store.classes, open_files(store.source), by="ann")
    with ReviewServer(desk, 0) as server:
        server.page = b"<p>the page</p>"
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield server
        server.shutdown()


def ask(server, place, body=None, *, method=None, token=None, **headers):
    """(status, headers, body) of a request as our page makes it, unless headers say otherwise."""
    method = method or ("GET" if body is None else "POST")
    host = f"127.0.0.1:{server.server_port}"
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"Host": host} | ({} if body is None else {"Content-Type": "application/json"}) | headers
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=120)
    connection.request(method, f"/{server.token if token is None else token}/{place}", data, headers)
    answer = connection.getresponse()
    found = answer.status, answer.headers, answer.read()
    connection.close()
    return found


def verdict(server, row=0, decision="keep", **more):
    split = server.desk.split
    given = server.desk.classes[split.label_N()[row]]
    digest = digest_text(split.fingerprints().digest_N16[row])
    told = {"key": split.keys()[row], "digest": digest, "given": given, "verdict": decision, "at": AT}
    return told | more


def stored(server):
    return Decisions(server.desk.split.store_path, "train").read()


def test_the_page_its_images_and_verdicts_are_served(server):
    status, headers, body = ask(server, "")
    assert (status, body) == (200, b"<p>the page</p>")
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["X-Content-Type-Options"] == "nosniff"
    status, headers, body = ask(server, "image/0")
    assert (status, headers["Content-Type"]) == (200, "image/jpeg")
    original = Image.open(server.desk.files.location + "/" + server.desk.split.keys()[0])
    assert Image.open(io.BytesIO(body)).size == original.size
    assert json.loads(ask(server, "api/verdicts")[2]) == {"verdicts": [], "by": "ann"}


def test_a_verdict_is_in_the_store_when_the_answer_says_so(server):
    told = verdict(server, 3, "drop")
    status, _, body = ask(server, "api/verdict", told, Origin=f"http://127.0.0.1:{server.server_port}")
    assert (status, json.loads(body)) == (200, {"stored": True, "contradicts": False})
    (one,) = stored(server)
    assert (one.key, one.digest, one.verdict, one.by, one.at) == (told["key"], told["digest"], "drop", "ann", AT)
    assert one.source == "cleanctl review serve"
    assert json.loads(ask(server, "api/verdicts")[2])["verdicts"] == [told | {"by": "ann"}]
    ask(server, "api/verdict", told)  # sent again after a lost answer
    assert len(stored(server)) == 1
    status, _, body = ask(server, "api/verdict", verdict(server, 3, "keep", by="bob"))
    assert json.loads(body)["contradicts"] is True
    for decision in ("skip", "drop"):  # undone, and decided again within a second
        ask(server, "api/verdict", verdict(server, 3, decision))
    assert [one.verdict for one in stored(server)] == ["drop", "keep", "skip", "drop"]


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "127.0.0.1"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
    ],
)
def test_other_sites_are_refused(server, headers):
    assert ask(server, "", **headers)[0] == 403
    assert ask(server, "api/verdict", verdict(server), **headers)[0] == 403
    assert stored(server) == []


@pytest.mark.parametrize("token", ["", "x", "..", "%2e%2e"])
def test_without_the_token_there_is_nothing(server, token):
    for place in ("", "api/verdicts", "image/0"):
        assert ask(server, place, token=token)[0] == 404
    assert ask(server, "api/verdict", verdict(server), token=token)[0] == 404
    assert ask(server, "", token=server.token[:-1])[0] == 404
    assert stored(server) == []


@pytest.mark.parametrize(
    "place",
    [
        "image/-1",
        "image/99999",
        "image/1e1",
        "image/0/../../../etc/passwd",
        "image/",
        "image/²",
        "../s.zarr",
        "api",
        "x",
    ],
)
def test_nothing_but_known_rows_is_served(server, place):
    from urllib.parse import quote

    assert ask(server, quote(place))[0] == 404


def test_an_image_whose_file_is_another_one_now_is_not_shown(server, tmp_path, monkeypatch):
    from cleanctl.records import FileContent

    class Swapped:
        def read(self, keys):
            buffer = io.BytesIO()
            Image.new("RGB", (8, 8)).save(buffer, "PNG")
            yield FileContent(buffer.getvalue(), len(buffer.getvalue()), 0)

    monkeypatch.setattr(server.desk, "files", Swapped())
    assert ask(server, "image/0")[0] == 404


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{", 400),
        (b"[" * 50_000, 400),
        (b"[]", 400),
        ({"key": "x"}, 400),
        ({"key": "nowhere.jpg", "verdict": "keep"}, 409),
        (b" " * (BODY_BYTES + 1), 413),
    ],
)
def test_what_is_no_verdict_is_refused_with_a_reason(server, body, status):
    assert ask(server, "api/verdict", body)[0] == status
    assert stored(server) == []


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"digest": "0" * 16}, 409),
        ({"given": "zebra"}, 409),
        ({"verdict": "maybe"}, 400),
        ({"verdict": "relabel", "label": "zebra"}, 409),
        ({"verdict": "relabel"}, 400),
        ({"at": "noon"}, 400),
        ({"by": "x" * 300}, 400),
    ],
)
def test_a_verdict_that_does_not_fit_the_split_is_refused(server, changes, status):
    assert ask(server, "api/verdict", verdict(server, **changes))[0] == status
    assert stored(server) == []


def test_requests_of_other_kinds_are_refused(server):
    assert ask(server, "api/verdict", verdict(server), **{"Content-Type": "text/plain"})[0] == 415
    assert ask(server, "api/verdicts", {})[0] == 404
    assert ask(server, "api/verdict", method="DELETE")[0] == 501
    assert ask(server, "api/verdict", b"0\r\n\r\n", **{"Transfer-Encoding": "chunked"})[0] == 411


# ---- the verb


@pytest.fixture
def selected(tmp_path):
    """A store of 30 imported rows with a selection; there are no images."""
    label_N = np.arange(30) % 3
    x = np.eye(3, 8)[label_N] + 0.1 * np.random.default_rng(0).standard_normal((30, 8))
    arrays = {"image_embeddings": x.astype("f4"), "labels": label_N, "text_classes": np.arange(3)}
    arrays["text_embeddings"] = np.eye(3, 8, dtype="f4")
    for name, values in arrays.items():
        np.save(tmp_path / f"{name}.npy", values)
    config = ImportConfig(**{name: tmp_path / f"{name}.npy" for name in arrays})
    api.import_arrays(config, store=tmp_path / "s.zarr")
    api.select(SelectConfig(strategy="zeroshot.match", device="cpu"), store=tmp_path / "s.zarr")
    return tmp_path / "s.zarr"


def started(store):
    """(process, URL) of `cleanctl review serve`."""
    process = commands.Command("-m", "cleanctl", "review", "serve", "--store", store, "--json")
    for line in process.stderr:
        if line.startswith("Review at "):
            return process, urlsplit(line.split()[2])
    raise AssertionError("no address was printed")


def post(url, body):
    connection = http.client.HTTPConnection(url.hostname, url.port, timeout=60)
    connection.request("POST", f"{url.path}api/verdict", json.dumps(body), {"Content-Type": "application/json"})
    status = connection.getresponse().status
    connection.close()
    return status


def test_verdicts_outlive_a_kill_and_ctrl_c_ends_cleanly(selected):
    process, url = started(selected)
    assert url.hostname == "127.0.0.1"
    with socket.create_connection((url.hostname, url.port)) as half:
        half.sendall(b"POST /")  # a request that never goes on is in nobody's way
        key = Store.open(selected).split("train").keys()[4]
        assert post(url, {"key": key, "verdict": "drop", "at": AT}) == 200
        os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert [(one.key, one.verdict) for one in Decisions(selected, "train").read()] == [(key, "drop")]
    process, again = started(selected)
    assert again.path != url.path  # another token
    connection = http.client.HTTPConnection(again.hostname, again.port, timeout=60)
    connection.request("GET", again.path)
    assert b"cleanctl report" in connection.getresponse().read()
    assert post(again, {"key": key, "verdict": "keep", "by": "bob", "at": AT}) == 200
    os.kill(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert json.loads(out)["taken"] == 1
    assert "Traceback" not in err


def test_a_port_that_is_taken_is_refused_before_the_page_is_made(selected, monkeypatch):
    monkeypatch.setattr("cleanctl.review.serve.write_report", lambda *given, **more: pytest.fail("made for nothing"))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(UsageError, match="cannot be used"):
            api.serve_review(ReviewServeConfig(port=taken.getsockname()[1]), store=selected, ready=print)
