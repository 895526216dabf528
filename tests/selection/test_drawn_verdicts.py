"""joint's probabilities after verdicts in the store: only labels that were drawn count, by their chance."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from cleanctl.selection.expected import apply_verdicts
from cleanctl.selection.verdicts import FEWEST, Looks, drawn_looks, recalibrated, told_looks
from cleanctl.store.standing import DROP, KEEP, Standing

COUNT = 4_000


def split_of(**samples):
    """What drawn_looks asks of a split: name → (place, chance)."""
    stored = {
        name: SimpleNamespace(place=place, arrays={"chance": chance.astype(np.float32)})
        for name, (place, chance) in samples.items()
    }
    return SimpleNamespace(samples=SimpleNamespace(attributes=lambda damaged: stored, read=stored.get))


def standing_of(row_V, right_V):
    code_V = np.where(right_V, KEEP, DROP).astype(np.int8)
    verdicts = tuple(SimpleNamespace() for _ in row_V)
    return Standing(row_V=row_V, code_V=code_V, label_V=np.zeros(len(row_V), np.int32), verdicts=verdicts)


def test_only_verdicts_on_drawn_and_readable_labels_count():
    place_N, chance_N, ok_N = np.zeros(10, np.int32), np.full(10, 0.5), np.ones(10, bool)
    place_N[[2, 4, 6]], ok_N[6] = [1, 2, 3], False
    found = standing_of(np.arange(2, 8), np.array([True, True, False, True, True, True]))
    looks = drawn_looks(split_of(mine=(place_N, chance_N)), found, ok_N)
    assert looks.row_V.tolist() == [2, 4]
    assert looks.right_V.tolist() == [True, False]
    assert looks.weight_V.tolist() == [1, 1]
    assert f"{FEWEST} are needed" in told_looks(looks, found)
    assert not len(drawn_looks(split_of(), found, ok_N).row_V)
    assert told_looks(looks, Standing()) == ""


def test_labels_that_were_drawn_more_often_count_less():
    """Half of the labels are drawn ten times as often; where they are wrong more often at the same P, a plain fit would
    take the whole for as bad as them."""
    rng = np.random.default_rng(0)
    p_N = np.full(COUNT, 0.7)
    often_N = np.arange(COUNT) % 2 == 0
    right_N = rng.random(COUNT) < np.where(often_N, 0.4, 0.9)
    chance_N = np.where(often_N, 0.5, 0.05)
    drawn = np.flatnonzero(rng.random(COUNT) < chance_N)
    place_N = np.zeros(COUNT, np.int32)
    place_N[drawn] = 1 + np.arange(len(drawn))
    found = standing_of(drawn, right_N[drawn])
    looks = drawn_looks(split_of(mine=(place_N, chance_N)), found, np.ones(COUNT, bool))
    fitted = recalibrated(p_N, looks.row_V, looks.right_V, looks.weight_V).of(p_N)[0]
    plain = recalibrated(p_N, looks.row_V, looks.right_V).of(p_N)[0]
    assert fitted == pytest.approx(right_N.mean(), abs=0.05)
    assert plain < right_N.mean() - 0.1
    assert "recalibrated with" in told_looks(looks, found)


@pytest.mark.parametrize("rate", [0.2, 0.95])
def test_the_other_classes_share_what_the_verdicts_leave_the_label(rate):
    """Of a true posterior over five classes; verdicts say that labels are right more rarely, or more often, than it."""
    rng = np.random.default_rng(1)
    q_MC = rng.dirichlet(np.full(5, 0.4), COUNT).astype(np.float32)
    label_M = rng.integers(0, 5, COUNT)
    rows = np.arange(COUNT)
    order_MC = np.argsort(-q_MC, axis=1)
    p_M = q_MC[rows, label_M].clip(1e-6, 1 - 1e-4)
    q_MC *= ((1 - p_M) / (q_MC.sum(axis=1) - q_MC[rows, label_M]).clip(1e-9))[:, None]
    q_MC[rows, label_M] = p_M
    order_MC = np.argsort(-q_MC, axis=1)
    before = {
        "p_label": p_M,
        "p_max": q_MC[rows, order_MC[:, 0]],
        "p_second": q_MC[rows, order_MC[:, 1]],
        "suggested": order_MC[:, 0].astype(np.int32),
        "log_p_label": np.log(p_M),
    }
    looks = Looks(row_V=rows[:200], right_V=rng.random(200) < rate, weight_V=np.ones(200))
    after, mended = apply_verdicts(before, label_M, rows, looks)
    assert mended.verdicts == 200
    assert np.abs(after["p_label"] - p_M).max() > 0.2
    q_MC *= ((1 - after["p_label"]) / (1 - p_M))[:, None]
    q_MC[rows, label_M] = after["p_label"]
    best_M = q_MC.max(axis=1)
    kept = before["suggested"] == label_M  # a label that was the likeliest stays it
    assert after["p_max"][~kept] == pytest.approx(best_M[~kept], abs=1e-5)
    assert (after["suggested"] == label_M)[kept].all()
    changed = ~kept & (np.abs(best_M - after["p_label"]) > 1e-5)
    assert (after["suggested"] == q_MC.argmax(axis=1))[changed].all()
    overtakes = ~kept & (after["p_label"] > np.sort(q_MC, axis=1)[:, -2] + 1e-5)
    assert overtakes.any()
    assert (after["suggested"] == label_M)[overtakes].all()
    behind = ~kept & ~overtakes
    assert (after["p_second"] >= np.sort(q_MC, axis=1)[:, -2] - 1e-5)[behind].all()
    assert (after["p_second"] <= after["p_max"] + 1e-5)[behind].all()
    rest_MC = q_MC.copy()
    rest_MC[rows, label_M] = 0
    assert after["p_second"][kept] == pytest.approx(rest_MC.max(axis=1)[kept], abs=1e-5)
    assert after["p_second"][overtakes] == pytest.approx(rest_MC.max(axis=1)[overtakes], abs=1e-5)
