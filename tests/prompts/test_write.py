"""`cleanctl prompts write` against a service on this machine: what is sent, kept, tried again, refused and hidden."""

from __future__ import annotations

import json
import re
import socket
import tomllib
from pathlib import Path

import pytest
from service import Reply, chat, features, serving
from typer.testing import CliRunner

from cleanctl.cli import app
from cleanctl.prompts import endpoint
from cleanctl.prompts.load import load_prompts
from cleanctl.prompts.prompt_set import resolve_prompts

FILE = Path("p.toml")
CLASSES = ("cat", "dog", "red_fox")
KEY = "sk-quite-secret-0123456789"


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "400")
    for name in ("CLEANCTL_API_KEY", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "classes.txt").write_text("\n".join(CLASSES) + "\n")


@pytest.fixture
def waits(monkeypatch):
    """The seconds that the client would have waited."""
    waited: list[float] = []
    monkeypatch.setattr(endpoint.time, "sleep", waited.append)
    return waited


def write(*more, code=0, json_out=True):
    words = ["prompts", "write", "p.toml", "--classes", "classes.txt", "--features", "3", *more]
    result = CliRunner().invoke(app, [*words, "--json"] if json_out else words)
    assert result.exit_code == code, (result.output, result.stderr, result.exception)
    return result


def ask(service, *more, code=0, **rest):
    return write("--endpoint", service.url, "--llm", "tiny-llm", *more, code=code, **rest)


def class_asked(body) -> str:
    return re.search(r"Describe the class '(\w+)'", body["messages"][1]["content"])[1]


def good(number, body):
    return chat(features(class_asked(body)))


def test_each_class_is_asked_for_in_the_protocol_and_the_file_serves_embed(tmp_path):
    with serving(good) as service:
        record = json.loads(ask(service, "--about", "pets seen\nfrom above").stdout)
    assert record["written"] == list(CLASSES)
    assert record["missing"] == []
    paths, headers, bodies = zip(*service.requests)
    assert set(paths) == {"/v1/chat/completions"}
    assert {body["model"] for body in bodies} == {"tiny-llm"}
    assert [[message["role"] for message in body["messages"]] for body in bodies] == [["system", "user"]] * 3
    assert not any("Authorization" in one for one in headers)
    assert "pets seen from above" in service.asked(0)
    found = resolve_prompts("p.toml", CLASSES)
    assert found.prompts[3] == "a photo of a dog which has dog part 0."
    assert len(found.prompts) == 9


def test_look_alikes_are_named_to_each_other_and_to_no_one_else():
    with serving(good) as service:
        ask(service, "--look-alikes", "Dog|red fox")
    assert "like" not in service.asked(0)
    assert "It looks like 'red_fox': name what is seen on it and not on them." in service.asked(1)
    assert "It looks like 'dog'" in service.asked(2)


def test_a_second_run_asks_only_for_what_is_missing():
    with serving(
        lambda n, body: good(n, body) if n < 2 else Reply(status=401, body={"error": {"message": "no"}})
    ) as one:
        ask(one, code=3)
    assert set(load_prompts(FILE).phrases) == {"cat", "dog"}
    with serving(good) as two:
        record = json.loads(ask(two).stdout)
        again = json.loads(ask(two).stdout)
    assert [class_asked(body) for _, _, body in two.requests] == ["red_fox"]
    assert (record["written"], record["kept"]) == (["red_fox"], ["cat", "dog"])
    assert (again["written"], len(again["kept"])) == ([], 3)


def test_ctrl_c_keeps_the_answers_and_leaves_no_half_file(tmp_path, monkeypatch):
    post = endpoint.ChatService._post

    def interrupted(self, body):
        if b"'dog'" in body.partition(b"The other classes")[0]:
            raise KeyboardInterrupt
        return post(self, body)

    monkeypatch.setattr(endpoint.ChatService, "_post", interrupted)
    with serving(good) as service:
        result = ask(service, code=130)
    assert "go on" in result.stderr
    assert list(load_prompts(FILE).phrases) == ["cat"]
    assert not list(tmp_path.glob(".*.partial"))


def test_a_busy_service_is_waited_for_as_it_asks(waits):
    replies = [
        Reply(status=429, headers={"Retry-After": "7"}),
        Reply(status=429, headers={"Retry-After": "0"}),
        Reply(status=503),
        Reply(status=500),
    ]
    with serving(lambda n, body: replies[n] if n < 4 else good(n, body)) as service:
        record = json.loads(ask(service).stdout)
    assert waits == [7.0, 0.0, 4.0, 8.0]
    assert len(service.requests) == 7
    assert record["missing"] == []


def test_a_service_that_stays_busy_is_given_up_with_what_it_said(waits):
    with serving(lambda n, body: Reply(status=503, body={"error": {"message": "overloaded"}})) as service:
        stderr = ask(service, "--retries", "2", code=3).stderr
    assert len(service.requests) == 3
    assert waits == [1.0, 2.0]
    assert "answered 503 3 times: overloaded" in stderr


def test_a_wait_of_hours_is_told_and_not_waited_for(waits):
    with serving(lambda n, body: Reply(status=429, headers={"Retry-After": "7200"})) as service:
        assert "asks for a wait of 7,200 s" in ask(service, code=3).stderr
    assert waits == []


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("12", 12.0), ("-3", 0.0), ("Sat, 01 Jan 2000 00:01:00 GMT", 60.0), ("soon", None), (None, None), ("nan", None)],
)
def test_retry_after_is_seconds_or_a_date(header, seconds):
    assert endpoint.retry_after(header, now=946_684_800.0) == seconds


@pytest.mark.parametrize(
    ("reply", "told"),
    [
        (Reply(status=401, body={"error": {"message": "no key"}}), "answered 401: no key. .*CLEANCTL_API_KEY"),
        (Reply(status=403, body={"error": "forbidden"}), "answered 403: forbidden"),
        (
            Reply(status=404, body=b"<html>Not Found</html>"),
            "answered 404: <html>Not Found</html>.*usually ending in /v1",
        ),
        (Reply(status=302, headers={"Location": "http://127.0.0.1:9/"}), "answered 302.*not sent on"),
        (Reply(body=b"{"), "no chat completion"),
        (Reply(body={"choices": []}), "no chat completion"),
        (Reply(body=[1]), "no chat completion"),
    ],
)
def test_a_refusal_is_told_once_with_its_remedy(reply, told, waits):
    with serving(lambda n, body: reply) as service:
        stderr = " ".join(ask(service, code=3).stderr.split())
    assert re.search(told, stderr), stderr
    assert len(service.requests) == 1
    assert waits == []


def test_a_service_that_is_silent_or_absent_is_told():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        arguments = ("--endpoint", url, "--llm", "x", "--timeout", "0.2")
        assert "gave no answer within 0.2 s" in write(*arguments, code=3).stderr
    assert "cannot be reached: [Errno 111] Connection refused" in write(*arguments, code=3).stderr


def test_a_bad_answer_is_asked_for_again_with_what_was_wrong():
    bad = [chat("Sure! Here they are."), chat(features("cat", 2))]
    with serving(lambda n, body: bad[n] if n < 2 else good(n, body)) as service:
        assert json.loads(ask(service).stdout)["missing"] == []
    repair = service.requests[1][2]["messages"]
    assert [message["role"] for message in repair] == ["system", "user", "assistant", "user"]
    assert "not JSON alone" in repair[-1]["content"]
    assert "It has 2 phrases, not 3." in service.requests[2][2]["messages"][-1]["content"]


def test_a_class_without_a_usable_answer_does_not_keep_the_others_out():
    with serving(lambda n, body: chat("no") if class_asked(body) == "dog" else good(n, body)) as service:
        stderr = ask(service, code=3).stderr
    assert "1 cannot be used. dog: It is not JSON alone: 'no'." in " ".join(stderr.split())
    assert set(load_prompts(FILE).phrases) == {"cat", "red_fox"}
    assert len(service.requests) == 5


def test_the_key_goes_into_the_header_and_nowhere_else(monkeypatch, tmp_path):
    monkeypatch.setenv("CLEANCTL_API_KEY", KEY)
    echo = Reply(status=401, body={"error": {"message": f"Incorrect API key provided: {KEY}"}})
    with serving(lambda n, body: good(n, body) if n < 2 else echo) as service:
        result = ask(service, "--debug", code=3, json_out=False)
    assert {headers["Authorization"] for _, headers, _ in service.requests} == {f"Bearer {KEY}"}
    assert "Incorrect API key provided: …" in result.stderr
    assert KEY not in result.output + result.stderr
    assert KEY not in json.dumps([body for _, _, body in service.requests])
    assert not any(KEY.encode() in path.read_bytes() for path in tmp_path.iterdir())


def test_a_key_that_no_header_can_carry_is_refused_unseen(monkeypatch):
    monkeypatch.setenv("MY_KEY", f"{KEY}\n")
    with serving(good) as service:
        result = ask(service, "--key-variable", "MY_KEY", code=3)
    assert "$MY_KEY holds no key" in result.stderr
    assert KEY not in result.stderr + result.stdout
    assert service.requests == []


def test_the_key_does_not_follow_a_redirect(monkeypatch):
    monkeypatch.setenv("CLEANCTL_API_KEY", KEY)
    with serving(good) as other, serving(lambda n, body: Reply(status=307, headers={"Location": other.url})) as service:
        ask(service, code=3)
    assert other.requests == []


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ([], "Nothing says who is to be asked"),
        (["--print", "--answers", "a.json"], "--print and --answers were given together"),
        (["--print", "--llm", "x"], "--llm was given without --endpoint"),
        (["--endpoint", "http://localhost/v1"], "--endpoint was given without --llm"),
        (["--endpoint", "file:///etc/passwd", "--llm", "x"], "is no http:// or https:// address"),
        (["--endpoint", f"https://me:{KEY}@host/v1", "--llm", "x"], "holds a user name or password"),
        (["--endpoint", f"https://host/v1?key={KEY}", "--llm", "x"], "holds a query"),
        (["--endpoint", "http://localhost/v1", "--llm", "x", "--key-variable", KEY], "no name of an environment"),
    ],
)
def test_options_that_make_no_sense_are_refused_without_showing_a_key(more, told):
    stderr = write(*more, code=2).stderr
    assert told in stderr
    assert KEY not in stderr


# ---- by hand


def test_a_printed_request_and_a_pasted_answer_go_the_whole_way():
    text = write("--print", "--look-alikes", "cat,dog", json_out=False).stdout
    assert all(f"- {name}" in text for name in CLASSES)
    assert "'cat' looks like 'dog'" in text
    assert not FILE.exists()
    Path("answer.txt").write_text(
        "```json\n" + json.dumps({"Cat": features("cat"), "red fox": features("fox")}) + "\n```\n"
    )
    record = json.loads(write("--answers", "answer.txt").stdout)
    assert (record["written"], record["missing"]) == (["cat", "red_fox"], ["dog"])
    rest = json.loads(write("--print").stdout)["request"]
    assert "- dog" in rest
    assert "- cat" not in rest


def test_of_a_pasted_answer_the_usable_part_is_kept_and_the_rest_told():
    answer = {"cat": features("cat"), "dog": ["which barks."], "wolf": features("wolf"), "red_fox": "which is red"}
    Path("answer.json").write_text(json.dumps(answer))
    stderr = " ".join(write("--answers", "answer.json", code=3).stderr.split())
    assert "dog: It has 1 phrases, not 3." in stderr
    assert "wolf: No class has this name." in stderr
    assert "red_fox: It is a text, not a list of texts." in stderr
    assert list(load_prompts(FILE).phrases) == ["cat"]


def test_an_answer_that_is_no_json_object_takes_nothing():
    Path("answer.json").write_text("Here you go: {}")
    assert "Nothing of it was taken." in write("--answers", "answer.json", code=3).stderr
    assert not FILE.exists()


def test_what_a_person_wrote_into_the_file_stays():
    FILE.write_text('suffix = ", a pet."\nequal = false\n[phrases]\n"red fox" = ["which is red", "a", "b", "c"]\n')
    with serving(good) as service:
        ask(service)
    values = tomllib.loads(FILE.read_text())
    assert values["phrases"]["red fox"] == ["which is red", "a", "b", "c"]
    assert (values["suffix"], values["equal"]) == (", a pet.", False)
    assert set(values["phrases"]) == {"red fox", "cat", "dog"}
    assert "--suffix is '!'" in ask(service, "--suffix", "!", code=3).stderr
