"""What `select --engine ray` does after a death, without a cluster: what is computed again, how often, what is told."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from cleanctl.distributed import ray_select
from cleanctl.distributed.ray_cluster import Seat
from cleanctl.distributed.ray_select import DEATHS, WorkerDied, until_stored
from cleanctl.errors import CleanctlError
from cleanctl.score.compute import Plan

SEAT = Seat(cores=2, gpus=0)


def plan_of(names):
    return Plan(logit_scale=None, basis={name: {} for name in names})


class Scores:
    """Of which each try stores the given number, in order, and then dies, until the tries are used up."""

    def __init__(self, names, *dying):
        self.stored, self.tried = [], []
        self._names, self._dying = list(names), list(dying)

    def plan(self):
        return plan_of(name for name in self._names if name not in self.stored)

    def score(self, plan):
        self.tried.append(list(plan.basis))
        dying = self._dying.pop(0) if self._dying else None
        self.stored += list(plan.basis)[:dying]
        if dying is not None:
            raise WorkerDied("The actor died: out of memory")


def test_what_is_stored_is_not_computed_again(recorder):
    scores = Scores("abc", 1, 0)
    until_stored(scores.plan(), scores.score, scores.plan, recorder)
    assert scores.tried == [["a", "b", "c"], ["b", "c"], ["b", "c"]]
    assert recorder.notes == ["A worker died; the score in hand is computed again by new ones."] * 2


def test_a_worker_that_dies_after_the_last_score_costs_nothing(recorder):
    scores = Scores("ab", 2)
    until_stored(scores.plan(), scores.score, scores.plan, recorder)
    assert (scores.stored, len(scores.tried), recorder.notes) == (["a", "b"], 1, [])


def test_a_score_at_which_workers_die_again_and_again_ends_the_run(recorder):
    scores = Scores("ab", *[0] * 100)
    with pytest.raises(CleanctlError, match=f"died {DEATHS} times at the same score: The actor died: out of") as why:
        until_stored(scores.plan(), scores.score, scores.plan, recorder)
    assert len(scores.tried) == DEATHS
    assert why.value.exit_code == 1
    assert "not stored" in why.value.so
    assert "--ray-cores" in why.value.do


def test_deaths_are_counted_anew_once_a_score_is_finished(recorder):
    scores = Scores("ab", *[0] * (DEATHS - 1), 1, *[0] * (DEATHS - 2))
    until_stored(scores.plan(), scores.score, scores.plan, recorder)
    assert scores.stored == ["a", "b"]
    assert len(scores.tried) == 2 * DEATHS - 1


# ---- the cluster


def nodes_of(*cores):
    return [{"Alive": count > 0, "Resources": {"CPU": float(count)}} for count in cores]


def test_where_the_last_node_died_the_run_waits_for_another(monkeypatch):
    monkeypatch.setattr(ray_select, "LOOK_SECONDS", 0.0)
    seen = iter([nodes_of(0), nodes_of(0, 1), nodes_of(0, 1, 4)])
    assert ray_select._room(SimpleNamespace(nodes=lambda: next(seen)), SEAT) == 2
    monkeypatch.setattr(ray_select, "START_SECONDS", 0.0)
    with pytest.raises(CleanctlError, match="No node of the Ray cluster is left that has 2 cores"):
        ray_select._room(SimpleNamespace(nodes=lambda: nodes_of(0, 1)), SEAT)


class Actor:
    def __init__(self):
        self.place = SimpleNamespace(remote=lambda: self)


def never_ready(*nodes):
    return SimpleNamespace(wait=lambda refs, timeout: ([], refs), nodes=lambda: nodes_of(*nodes))


def test_workers_that_find_no_place_are_too_many_or_their_node_is_gone(monkeypatch):
    monkeypatch.setattr(ray_select, "START_SECONDS", 0.0)
    with pytest.raises(CleanctlError, match="Ray started 0 of 2 workers within 0 s") as late:
        ray_select._take_places(never_ready(4), SEAT, [Actor(), Actor()])
    assert "--processes" in late.value.do
    with pytest.raises(WorkerDied, match="a node was lost"):
        ray_select._take_places(never_ready(2, 0), SEAT, [Actor(), Actor()])
