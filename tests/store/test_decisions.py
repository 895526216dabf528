"""The log of verdicts: append-only, whole after a kill, serialised between processes, resolved the same for all."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace

import pytest

from cleanctl.errors import StoreError
from cleanctl.store.decisions import Decisions, Verdict, resolve
from cleanctl.store.files import DamageError


def verdict(key="a", decision="keep", *, by="ann", at="2026-11-21T10:00:00Z", **more):
    return Verdict(
        key=key, digest="0" * 16, given="cat", verdict=decision, by=by, at=at, **{"source": "a.json", **more}
    )


@pytest.fixture
def log(tmp_path):
    (tmp_path / "s.zarr").mkdir()
    return Decisions(tmp_path / "s.zarr", "train")


def test_what_is_appended_is_read_back_in_order(log):
    told = [verdict(f"ключ/{n}\n\ud800", "relabel", label='do"g', settled="2026-11-21T11:00:00Z") for n in range(5)]
    log.append(told[:2])
    log.append(told[2:])
    assert log.read() == told


def test_a_line_that_was_cut_off_is_ignored_and_then_removed(log):
    log.append([verdict("a"), verdict("b")])
    whole = log.path.read_bytes()
    for cut in range(1, len(whole) - whole.index(b"\n") - 1):
        log.path.write_bytes(whole[:-cut])
        assert [one.key for one in log.read()] == ["a"]
    log.append([verdict("c")])
    assert [one.key for one in log.read()] == ["a", "c"]


def test_an_altered_line_is_damage_and_names_itself(log):
    log.append([verdict("a"), verdict("b"), verdict("c")])
    log.path.write_bytes(log.path.read_bytes().replace(b'"key":"b"', b'"key":"x"'))
    with pytest.raises(DamageError, match=r"line 2.*checksum"):
        log.read()


WRITER = """
import sys
from pathlib import Path
from cleanctl.store.decisions import Decisions, Verdict
log = Decisions(Path(sys.argv[1]), "train")
for number in range(10**6):
    one = dict(digest="", given="cat", verdict="keep", at="2026-11-21T10:00:00Z", source="x" * 3000)
    log.append([Verdict(key=f"{number}-{part}", **one) for part in range(3)])
    print(number, flush=True)
"""


def test_no_acknowledged_verdict_is_lost_when_the_writer_is_killed(log):
    for acknowledged in (1, 6):
        before = len(log.read())
        process = subprocess.Popen([sys.executable, "-c", WRITER, str(log.store_path)], stdout=subprocess.PIPE)
        for _ in range(acknowledged):
            process.stdout.readline()
        os.kill(process.pid, signal.SIGKILL)
        said = acknowledged + len(process.stdout.read().splitlines())
        process.wait()
        there = [one.key for one in log.read()][before:]
        assert there[: 3 * said] == [f"{number}-{part}" for number in range(said) for part in range(3)]
        log.append([verdict("after the kill")])
        assert log.read()[-1].key == "after the kill"


APPENDER = """
import sys
from pathlib import Path
from cleanctl.store.decisions import Decisions, Verdict
log, name = Decisions(Path(sys.argv[1]), "train"), sys.argv[2]
for number in range(20):
    one = dict(digest="", given="cat", verdict="keep", at="2026-11-21T10:00:00Z", source="x")
    log.append([Verdict(key=f"{name}-{number}-{part}", **one) for part in range(5)])
"""


def test_two_processes_append_one_after_the_other(log):
    words = [sys.executable, "-c", APPENDER, str(log.store_path)]
    processes = [subprocess.Popen([*words, name]) for name in ("a", "b")]
    assert [one.wait(timeout=120) for one in processes] == [0, 0]
    keys = [one.key for one in log.read()]
    assert sorted(keys) == sorted(f"{n}-{i}-{part}" for n in ("a", "b") for i in range(20) for part in range(5))
    batches = [key.rpartition("-")[0] for key in keys]
    assert all(len(set(batches[start : start + 5])) == 1 for start in range(0, 200, 5))


def test_a_process_that_never_ends_is_waited_for_and_then_named(log, monkeypatch):
    from cleanctl.store import locks

    monkeypatch.setattr(locks, "APPEND_SECONDS", 0.1)
    with locks.decisions_lock(log.store_path), pytest.raises(StoreError, match=rf"pid {os.getpid()}"):
        log.append([verdict()])
    assert log.read() == []


# ---- who said what last


def test_a_person_may_change_their_mind_in_whichever_order_files_come():
    early, late = verdict(decision="keep"), verdict(decision="drop", at="2026-11-21T12:00:00+01:00")
    for order in ([early, late], [late, early]):
        latest, contradictions = resolve(order)
        assert list(latest.values()) == [late]
        assert contradictions == []


def test_two_people_who_disagree_are_a_contradiction_with_both_sides():
    ann, bob = verdict(decision="relabel", label="dog"), verdict(by="bob", at="2026-11-22T10:00:00Z")
    latest, (found,) = resolve([bob, ann])
    assert found.sides == (ann, bob)
    assert list(latest.values()) == [bob]
    assert resolve([ann, replace(ann, by="bob")])[1] == []
    assert resolve([ann, replace(bob, given="dog")])[1] == []  # both say dog
    assert resolve([ann, replace(bob, digest="1" * 16)])[1] == []  # of another content


def test_nameless_files_are_sides_of_their_own():
    first, second = verdict(by=""), verdict(by="", decision="drop", source="b.json")
    assert len(resolve([first, second])[1]) == 1
    assert resolve([first, replace(second, source=first.source)])[1] == []


def test_skipping_decides_nothing_and_takes_back_nothing_of_others():
    ann, bob = verdict(), verdict(decision="skip", by="bob", at="2026-11-22T10:00:00Z")
    assert resolve([ann, bob]) == ({ann.image: ann}, [])
    assert resolve([bob]) == ({bob.image: bob}, [])
    assert resolve([ann, replace(bob, by="ann")])[0] == {ann.image: replace(bob, by="ann")}


def test_a_settled_verdict_answers_what_came_before_and_a_later_one_opens_it_again():
    ann, bob = verdict(), verdict(decision="drop", by="bob", at="2026-11-22T10:00:00Z")
    settled = replace(ann, settled="2026-11-23T10:00:00Z")
    assert resolve([ann, bob, settled]) == ({ann.image: settled}, [])
    again = replace(bob, at="2026-11-24T10:00:00Z")
    latest, (found,) = resolve([ann, bob, settled, again])
    assert found.sides == (settled, again)
    assert latest == {ann.image: again}


def test_a_withdrawn_verdict_counts_no_more():
    ann, bob = verdict(), verdict(decision="drop", by="bob", at="2026-11-22T10:00:00Z")
    back = replace(bob, verdict="withdrawn", at="2026-11-23T10:00:00Z")
    assert resolve([ann, bob, back]) == ({ann.image: ann}, [])
    assert resolve([ann, bob, replace(back, settled=back.at)]) == ({}, [])
