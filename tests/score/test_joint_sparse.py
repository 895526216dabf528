"""What `joint` does where classes are many: sums over the few classes of a row that matter, against dense ones."""

from __future__ import annotations

import numpy as np
import pytest
from cleanctl_kernels import prompt_bank
from cleanctl_kernels.arrays import as_array, to_numpy
from cleanctl_kernels.threads import in_threads

from cleanctl.score import joint_arrays, joint_channel, joint_prompts, joint_tiles, joint_weights
from cleanctl.score.joint_arrays import Products, above, agreement, highest
from cleanctl.score.joint_channel import Groups, Whole, fit_channel
from cleanctl.score.joint_head import Linear
from cleanctl.score.joint_prompts import logits_of
from cleanctl.score.joint_tiles import Tiles
from cleanctl.score.joint_top import Top
from cleanctl.score.scorer import ALONE

BOTH = pytest.mark.parametrize("device", ["cpu", "cpu:0"])


def few_of(rng, rows, classes, count):
    """(class_BK, q_BK, dense q_BC): K different classes of each row, in no order."""
    class_BK = rng.permuted(np.tile(np.arange(classes), (rows, 1)), axis=1)[:, :count].astype(np.int32)
    q_BK = rng.dirichlet(np.full(count + 1, 0.5), rows)[:, :count].astype(np.float32)
    q_BC = np.zeros((rows, classes), np.float32)
    np.put_along_axis(q_BC, class_BK.astype(np.int64), q_BK, axis=1)
    return class_BK, q_BK, q_BC


@BOTH
@pytest.mark.parametrize("rows", [1, 37])
def test_products_over_few_entries_are_those_of_the_whole_rows(monkeypatch, device, rows):
    monkeypatch.setattr(joint_arrays, "PIECE_ROWS", 10)
    rng = np.random.default_rng(0)
    place_BK, q_BK, q_BF = few_of(rng, rows, 11, 4)
    value_F, weight_B = rng.random(11, np.float32), rng.random(rows, np.float32)
    products = Products(as_array(place_BK, device), as_array(q_BK, device), 11)
    np.testing.assert_allclose(to_numpy(products.totals(as_array(value_F, device))), q_BF @ value_F, rtol=1e-5)
    sums = to_numpy(products.sums(as_array(weight_B, device)))
    assert sums.dtype == np.float64
    np.testing.assert_allclose(sums, q_BF.T @ weight_B, rtol=1e-5)


def test_of_whole_rows_the_given_label_and_every_entry_from_the_least_on_are_taken():
    q_BC = np.array([[0.5, 0.25, 0.25], [0.0, 1.0, 0.0], [0.0625, 0.125, 0.8125]], np.float32)
    products = above(q_BC, 0.25, np.array([0, 1, 1]), np.array([0, 1, 1]), 6)
    np.testing.assert_array_equal(products.sums(np.array([1, 2, 4], np.float32)), [0.5, 0.25, 0.25, 0, 2.5, 3.25])
    np.testing.assert_array_equal(products.totals(np.arange(6, dtype=np.float32)), [0.75, 4, 4.5625])


@pytest.mark.parametrize("kind", [np.int32, np.int64])
def test_agreement_leaves_the_classes_as_they_were(kind):
    """Threads share them, and scipy takes an index of either kind as it is."""
    class_BK, q_BK, _ = few_of(np.random.default_rng(2), 50, 9, 4)
    class_BK, q_BK[:, 1] = class_BK.astype(kind), 0
    before = class_BK.copy()
    agreement(class_BK, q_BK, 9)
    np.testing.assert_array_equal(class_BK, before)


@BOTH
def test_agreement_counts_what_a_row_leaves_and_what_is_too_small_as_left(device):
    rng = np.random.default_rng(1)
    class_BK, q_BK, q_BC = few_of(rng, 50, 9, 3)
    q_BK[7, 1], q_BC[7, class_BK[7, 1]] = 1e-5, 0.0
    agree, left, squares = agreement(as_array(class_BK, device), as_array(q_BK, device), 9)
    rest_B = 1 - q_BC.sum(axis=1, dtype=np.float64)
    np.testing.assert_allclose(to_numpy(agree), q_BC.T.astype(np.float64) @ q_BC, rtol=1e-9)
    np.testing.assert_allclose(to_numpy(left), rest_B @ q_BC, rtol=1e-6)
    assert float(squares) == pytest.approx((rest_B**2).sum())


@BOTH
def test_a_class_that_comes_twice_in_a_row_counts_once(device):
    class_BK = as_array(np.array([[2, 2, 0]], np.int32), device)
    q_BK = as_array(np.array([[0.75, 0.0, 0.25]], np.float32), device)
    agree, _, _ = agreement(class_BK, q_BK, 3)
    np.testing.assert_allclose(to_numpy(agree), [[0.0625, 0, 0.1875], [0, 0, 0], [0.1875, 0, 0.5625]])


@pytest.mark.parametrize("ties", [False, True])
def test_the_highest_of_a_row_are_found_with_and_without_ties(ties):
    values = np.random.default_rng(0).permuted(np.tile(np.arange(30.0), (20, 1)), axis=1)
    values = values // 10 if ties else values
    columns = highest(values, 4)
    assert columns.shape == (20, 4)
    assert all(len(set(row)) == 4 for row in columns.tolist())
    found = np.sort(np.take_along_axis(values, columns, axis=1), axis=1)
    np.testing.assert_array_equal(found, np.sort(values, axis=1)[:, -4:])


def plain_counts(q_BC, label_B, rate_YZ):
    """Expected rows of class z by label [y, z], and Σ ln P(label)."""
    r_BC = q_BC.astype(np.float64) * rate_YZ[label_B]
    total_B = r_BC.sum(axis=1)
    count_YZ = np.zeros_like(rate_YZ)
    np.add.at(count_YZ, label_B, r_BC / total_B[:, None])
    return count_YZ, np.log(total_B).sum()


def uneven_labels(rng, rows, classes):
    """Most rows have one label; some labels have none, the first and the last among them."""
    return np.where(rng.random(rows) < 0.6, 3, rng.choice([1, 2, classes - 3, classes - 2], rows))


@BOTH
@pytest.mark.parametrize(("tile_rows", "tile_labels"), [(5, 32), (1 << 11, 2), (1 << 11, 32)])
def test_tiles_of_labels_give_the_sums_of_all_rows(monkeypatch, device, tile_rows, tile_labels):
    monkeypatch.setitem(joint_tiles.TILE_ROWS, "cpu", tile_rows)
    monkeypatch.setitem(joint_tiles.TILE_LABELS, "cpu", tile_labels)
    monkeypatch.setattr(joint_arrays, "PIECE_ROWS", 16)
    rng, classes = np.random.default_rng(2), 12
    label_B = np.sort(uneven_labels(rng, 90, classes))
    class_BK, q_BK, q_BC = few_of(rng, 90, classes, 4)
    rest_C, rest_B = rng.dirichlet(np.ones(classes)), 1 - q_BK.sum(axis=1)
    rate_YZ = rng.random((classes, classes))
    tiles = Tiles(label_B, classes, device)
    assert [rows.start for _, rows in tiles.pieces] == [0, *(rows.stop for _, rows in tiles.pieces[:-1])]
    place_BK = class_BK + to_numpy(tiles.within_B)[:, None].astype(np.int32) * classes
    products = [
        Products(as_array(place_BK[rows], device), as_array(q_BK[rows], device), tiles.entries(labels))
        for labels, rows in tiles.pieces
    ]
    rest, shares, rate = (as_array(one, device) for one in (rest_B, rest_C, rate_YZ))
    count, logs = tiles.expect(products, rest, shares, rate, map, log=True)
    expected, expected_logs = plain_counts(q_BC + rest_B[:, None] * rest_C, label_B, rate_YZ)
    np.testing.assert_allclose(to_numpy(count), expected, rtol=1e-5, atol=1e-9)
    assert logs == pytest.approx(expected_logs, rel=1e-5)
    assert tiles.expect(products, rest, shares, rate, map, log=False)[1] == 0.0


@pytest.mark.parametrize(
    ("tile_labels", "labels", "rows"),
    [
        (32, [(0, 3), (3, 4), (4, 6)], [(0, 6), (6, 15), (15, 16)]),
        (2, [(0, 2), (2, 4), (4, 6)], [(0, 4), (4, 15), (15, 16)]),
    ],
)
def test_a_tile_has_as_many_labels_as_it_takes_to_have_its_rows(monkeypatch, tile_labels, labels, rows):
    monkeypatch.setitem(joint_tiles.TILE_ROWS, "cpu", 5)
    monkeypatch.setitem(joint_tiles.TILE_LABELS, "cpu", tile_labels)
    pieces = Tiles(np.repeat(np.arange(6), [2, 2, 2, 9, 0, 1]), 6, "cpu").pieces
    assert [(one.start, one.stop) for one, _ in pieces] == labels
    assert [(one.start, one.stop) for _, one in pieces] == rows


def kept_top(q_BC, label_B, device="cpu", *, first=0, num_rows=None, cuts=(0, 50)):
    kept = Top(label_B, q_BC.shape[1], device, first=first, num_rows=num_rows or len(q_BC))
    for start, stop in zip(cuts, (*cuts[1:], len(q_BC))):
        kept.add(kept.put(slice(start, stop), as_array(q_BC[start:stop].copy(), device)))
    kept.finish(ALONE)
    return kept


@BOTH
def test_the_given_label_and_the_best_classes_are_kept_as_they_are(device):
    rng, classes = np.random.default_rng(3), 60
    q_BC = rng.dirichlet(np.full(classes, 0.2), 120).astype(np.float32)
    label_B = uneven_labels(rng, 120, classes)
    kept = kept_top(q_BC, label_B, device)
    again = to_numpy(kept.likelihood(slice(10, 120)))
    other_BC = q_BC.astype(np.float64)
    np.put_along_axis(other_BC, label_B[:, None], 0.0, axis=1)
    left_B = np.sort(other_BC, axis=1)[:, : 1 - joint_channel.TOP].sum(axis=1)
    assert kept.left_out == pytest.approx(left_B.mean(), rel=1e-5)
    order = np.argsort(-q_BC[10:], axis=1)[:, : joint_channel.TOP - 1]
    np.testing.assert_allclose(again.sum(axis=1), 1.0, atol=1e-5)
    for columns in (order, label_B[10:, None]):
        exact, found = (np.take_along_axis(one, columns, axis=1) for one in (q_BC[10:], again))
        assert np.abs(exact - found).max() < kept.left_out  # the share of a class in what is left is added
    dense = to_numpy(kept.likelihood(slice(0, 120))).astype(np.float64)
    np.testing.assert_allclose(to_numpy(kept.agree), dense.T @ dense, atol=2e-3)
    rate_YZ = rng.random((classes, classes))
    count, logs = kept.expect(as_array(rate_YZ, device), map, log=True)
    expected, expected_logs = plain_counts(dense, label_B, rate_YZ)
    np.testing.assert_allclose(to_numpy(count), expected, atol=1e-4)
    assert logs == pytest.approx(expected_logs, rel=1e-5)
    seen = np.float32(rate_YZ)
    joint = to_numpy(kept.joint(slice(10, 120), as_array(seen, device)))
    np.testing.assert_allclose(joint, again * seen[label_B[10:]], rtol=1e-5)


def test_what_q_confuses_is_taken_from_the_same_rows_however_they_are_shared(monkeypatch):
    monkeypatch.setattr("cleanctl.score.joint_top.AGREE_ROWS", 40)
    rng, classes = np.random.default_rng(4), 30
    q_BC = rng.dirichlet(np.full(classes, 0.2), 100).astype(np.float32)
    label_B = uneven_labels(rng, 100, classes)
    whole = kept_top(q_BC, label_B)
    parts = [
        kept_top(q_BC[part], label_B[part], first=part.start, num_rows=100, cuts=(0,))
        for part in (slice(0, 49), slice(49, 100))
    ]
    chosen = np.arange(0, 100, 3)
    dense = np.concatenate([whole.likelihood(slice(row, row + 1)) for row in chosen]).astype(np.float64)
    np.testing.assert_allclose(whole.agree, dense.T @ dense, atol=2e-3)
    # Each part spreads what is left as its own rows do, so they agree in what is kept alone.
    np.testing.assert_allclose(sum(part.agree for part in parts), whole.agree, atol=0.05)


def test_sums_do_not_depend_on_the_number_of_threads():
    rng, classes = np.random.default_rng(5), 150
    q_BC = rng.dirichlet(np.full(classes, 0.05), 3000).astype(np.float32)
    label_B = rng.integers(0, classes, 3000)
    kept = kept_top(q_BC, label_B)
    one = fit_channel(kept, ALONE, iterations=5)
    two = fit_channel(kept, ALONE, iterations=5, each=lambda work, items: in_threads(work, items, threads=2))
    np.testing.assert_array_equal(one.rate, two.rate)
    assert one.mean_log == two.mean_log


def test_whole_rows_of_many_classes_give_the_same_by_their_few_entries(monkeypatch):
    rng, classes = np.random.default_rng(6), 40
    q_BC = rng.dirichlet(np.full(classes, 0.01), 400).astype(np.float32)
    label_B = uneven_labels(rng, 400, classes)
    found = []
    for many in (1000, 0):
        monkeypatch.setattr(joint_channel, "MANY", many)
        monkeypatch.setattr(joint_channel, "SPARSE", 1)
        kept = Whole(Groups(label_B, classes))
        kept.add(kept.put(slice(0, 400), q_BC))
        kept.finish(ALONE)
        assert (kept._tiles is None) == (many > 0)
        found.append(fit_channel(kept, ALONE, iterations=30))
    np.testing.assert_allclose(found[1].rate, found[0].rate, atol=1e-5)
    np.testing.assert_allclose(found[1].count, found[0].count, atol=1e-3)
    assert found[1].mean_log == pytest.approx(found[0].mean_log, abs=1e-5)


def test_rows_that_spread_over_all_classes_stay_whole(monkeypatch):
    monkeypatch.setattr(joint_channel, "MANY", 0)
    kept = Whole(Groups(np.zeros(20, np.int64), 6))
    kept.put(slice(0, 20), np.full((20, 6), 1 / 6, np.float32))
    kept.finish(ALONE)
    assert kept._tiles is None


def linear_of(rng, device, dim, classes):
    def draw(*shape):
        return as_array(rng.standard_normal(shape, np.float32), device)

    coef, shift = [draw(dim, classes) for _ in range(2)], [draw(classes) for _ in range(2)]
    return Linear(device=device, mean_D=draw(dim), coef=coef, shift=shift)


@BOTH
@pytest.mark.parametrize("prompts_each", [1, 3])
def test_head_and_prompts_mix_in_one_product_as_they_do_apart(device, prompts_each):
    """Up to a number a row, which a softmax does not see. The first mix takes them apart, the second does not."""
    rng, classes, dim, rows = np.random.default_rng(7), 20, 16, 30
    text = rng.standard_normal((classes * prompts_each, dim)).astype(np.float32)
    text /= np.linalg.norm(text, axis=1, keepdims=True)
    class_P = np.repeat(np.arange(classes), prompts_each)
    bank = prompt_bank(as_array(text, device), as_array(class_P, device), num_classes=classes, temperature=0.1)
    image = rng.standard_normal((rows, dim)).astype(np.float32)
    image, fold_B = as_array(image / np.linalg.norm(image, axis=1, keepdims=True), device), rng.integers(0, 2, rows)
    label_B, head, part = rng.integers(0, classes, rows), linear_of(rng, device, dim, classes), slice(0, rows)

    def mixes(whole):
        prompts = logits_of(bank, label_B, device, whole=whole)
        logit, high = prompts.first(part, image)
        prompts.finish(image, logit, high, ALONE)
        return prompts, [to_numpy(prompts.mixing(head, *by)(part, image, fold_B)) for by in ((0.4, 1.5), (0.7, 0.5))]

    _, exact = mixes(True)
    prompts, found = mixes(False)
    kept = np.tile(np.arange(classes), (rows, 1))
    if prompts_each > 1:  # then the other classes' logits of the prompts are those of a linear function
        assert isinstance(prompts, joint_prompts.TopLogits)
        kept = to_numpy(prompts._class_NK).astype(np.int64)
    for one, other in zip(exact, found):
        one, other = (np.take_along_axis(values, kept, axis=1) for values in (one, other))
        np.testing.assert_allclose(one - one[:, :1], other - other[:, :1], atol=1e-3)


@BOTH
def test_powers_are_the_exponentials(device):
    view = as_array(-np.random.default_rng(0).random((3, 5), np.float32) * 40, device)
    for weights in (joint_weights.HEAD, joint_weights.PROMPTS):
        for weight, found in zip(weights, joint_weights._powers(view, weights)):
            np.testing.assert_allclose(to_numpy(found), np.exp(to_numpy(view).astype(float) * weight), rtol=1e-4)
