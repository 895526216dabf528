"""What the driver of `select --engine ray` does, with a Ray that runs all in its place: how many actors there are, what
they are told, whose error is the run's, what of their progress is shown."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from cleanctl.config import SelectConfig
from cleanctl.distributed import ray_select
from cleanctl.distributed.ray_cluster import Seat
from cleanctl.distributed.ray_select import Desk, WorkerDied
from cleanctl.errors import InputError
from cleanctl.score.compute import Plan

SEAT = Seat(cores=2, gpus=0)
PLAN = Plan(logit_scale=None, basis={"zeroshot": {}})


class RayError(Exception):
    pass


class RayTaskError(RayError):
    def __init__(self, cause=None):
        super().__init__("an actor's traceback")
        self.cause = cause


class Handle:
    """An actor: a method's `remote` gives a function, which `ray.get` calls."""

    def __init__(self, ray, kind, given):
        self._ray, self.kind, self.given = ray, kind, given

    def __getattr__(self, name):
        return SimpleNamespace(remote=lambda *given: lambda: self._ray.answer(self, name, given))


class Ray:
    """Of one node. ends: what each actor's `run` gives or raises. late: looks at which no actor has its place yet."""

    exceptions = SimpleNamespace(RayError=RayError, RayTaskError=RayTaskError)

    def __init__(self, cores=4.0, *, ends=(None, None), told=(), late=0):
        self.cores, self.ends, self.late, self._told = cores, list(ends), late, list(told)
        self.asked, self.killed, self.options = [], [], []

    def nodes(self):
        return [{"Alive": True, "Resources": {"CPU": self.cores}}]

    def remote(self, **options):
        self.options.append(options)
        return lambda kind: SimpleNamespace(remote=lambda *given: Handle(self, kind, given))

    def answer(self, actor, name, given):
        if actor.kind is Desk:
            told, self._told = self._told, []
            return told
        if name == "place":
            return "host", 1
        self.asked.append(given)
        end = self.ends[actor.given[0]]
        if isinstance(end, RayError):
            raise end
        return end

    def wait(self, refs, timeout):
        if self.late:
            self.late -= 1
            return [], refs
        return refs[:1], refs[1:]

    def get(self, ref):
        return ref()

    def kill(self, actor):
        self.killed.append(actor.kind)


@pytest.fixture
def shared(monkeypatch):
    """What was asked of `shared_among`, which shares the rows among as many."""
    asked = []
    monkeypatch.setattr("cleanctl.distributed.sharing.shared_among", lambda *given: asked.append(given[:2]) or given[0])
    return asked


def score(ray, recorder, **options):
    config = SelectConfig(strategy="zeroshot.loss", engine="ray", ray_cores=2, **options)
    store, split = SimpleNamespace(path="s.zarr"), SimpleNamespace(name="train")
    ray_select._score_once(ray, SEAT, store, split, config, recorder, PLAN)


@pytest.mark.parametrize(("processes", "count"), [(None, 2), (1, 1), (8, 2)])
def test_as_many_actors_work_as_there_is_room_for_and_no_more_than_asked_for(processes, count, shared, recorder):
    ray = Ray(late=2)
    score(ray, recorder, processes=processes)
    assert shared == [(count, f"--engine ray with {count}")]
    assert recorder.notes == ["Room for 2 workers, each with 2 cores."]
    assert len(ray.asked) == count
    assert len(ray.killed) == count + 1
    assert {"num_cpus": 2, "num_gpus": 0, "max_restarts": 0} in ray.options


def test_actors_are_told_to_work_on_their_own_with_what_their_seat_has(shared, recorder):
    ray = Ray()
    score(ray, recorder, ray_address="head:6379", processes=2, theta_gmm=0.7)
    for store, split, config, plan, desk in ray.asked:
        assert (store.endswith("/s.zarr"), split, plan, desk.kind) == (True, "train", PLAN, Desk)
        assert store.startswith("/")
        assert (config.engine, config.ray_address, config.ray_cores, config.processes) == ("local", None, None, None)
        assert (config.device, config.theta_gmm) == ("cpu", 0.7)


def test_an_actors_error_is_the_runs_and_the_others_end(shared, recorder):
    ray = Ray(ends=(None, InputError("The second part is damaged.")))
    with pytest.raises(InputError, match="second part is damaged"):
        score(ray, recorder)
    assert len(ray.killed) == 3


@pytest.mark.parametrize(
    ("end", "raised", "words"),
    [
        (RayError("The actor died.\nIts node ran out of memory."), WorkerDied, r"The actor died\."),
        (RayTaskError(RayError("The desk died.")), WorkerDied, r"The desk died\."),
        (RayTaskError(RayTaskError()), RayTaskError, "traceback"),
        (RayTaskError(KeyError("x")), RayTaskError, "traceback"),
    ],
)
def test_a_death_is_told_from_an_error_of_ours(end, raised, words, shared, recorder):
    with pytest.raises(raised, match=words):
        score(Ray(ends=(end, None)), recorder)


def test_what_the_first_actor_tracks_notes_and_warns_of_is_shown_here(shared, recorder):
    advanced = []
    track = recorder.track

    def watched(title, **options):
        inner = track(title, **options)

        class Watched:
            def __enter__(self):
                inner.__enter__()
                return SimpleNamespace(advance=lambda amount: advanced.append((title, amount)))

            def __exit__(self, *exc):
                advanced.append((title, "end"))
                return inner.__exit__(*exc)

        return Watched()

    recorder.track = watched
    told = [
        ("start", ("nearest neighbours", 10, "rows", 0)),
        ("advance", ("nearest neighbours", 4)),
        ("advance", ("another", 5)),
        ("note", "knn: exact."),
        ("warn", "few rows"),
        ("start", ("joint", 0, "passes", 1)),
        ("advance", ("joint", 2)),
    ]
    score(Ray(told=told), recorder)
    assert recorder.tracked == [("nearest neighbours", 10, 0), ("joint", None, 1)]
    assert advanced == [("nearest neighbours", 4), ("nearest neighbours", "end"), ("joint", 2), ("joint", "end")]
    assert recorder.notes[1:] == ["knn: exact."]
    assert recorder.warnings == ["few rows"]
