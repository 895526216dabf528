"""Presets hold the published numbers; what only the released code does needs `--compat paper-code`."""

from __future__ import annotations

import pytest

from cleanctl.adapt.preset import batch_of_cached, choose_preset, names
from cleanctl.config import AdaptConfig


def chosen(**options):
    return choose_preset(AdaptConfig(**options))


def test_every_preset_is_named_in_the_help_and_loads():
    shipped = set(names()) - {"default"}
    assert shipped == {"cifar100", "tiny", "cub", "cars", "cifar100n", "webvision", "clothing1m"}
    for name in shipped:
        assert chosen(preset=name).epochs == 10


@pytest.mark.parametrize(
    ("name", "batch_size", "warmup", "real"),
    [
        ("cifar100", 64, 1, False),
        ("tiny", 64, 1, False),
        ("cub", 64, 1, False),
        ("cars", 64, 1, False),
        ("cifar100n", 64, 5, True),
        ("webvision", 64, 5, True),
        ("clothing1m", 32, 5, True),
    ],
)
def test_the_published_numbers(name, batch_size, warmup, real):
    preset = chosen(preset=name)
    assert (preset.batch_size, preset.warmup_epochs, preset.agree) == (batch_size, warmup, real)
    assert (preset.learning_rate, preset.momentum, preset.weight_decay) == (0.03, 0.9, 5e-4)
    phases = [preset.phase(epoch) for epoch in range(10)]
    assert [phase.warmup for phase in phases] == [epoch < warmup for epoch in range(10)]
    assert [phase.pseudo for phase in phases] == [epoch >= 1 for epoch in range(10)]  # of real data in warm-up too
    assert phases[0].warmup_loss == ("sce" if real else "ce")


def test_the_rate_falls_along_a_cosine_and_stays_where_the_published_code_forgets_to_step():
    rates = [chosen(preset="webvision").rate(epoch) for epoch in range(10)]
    assert rates[0] == 0.03
    assert rates[5] == pytest.approx(0.015)
    assert rates == sorted(rates, reverse=True)
    published = chosen(preset="webvision", compat="paper-code")
    assert {published.rate(epoch) for epoch in range(10)} == {0.03}
    assert published.decisions == "last-epoch"
    synthetic = chosen(preset="cifar100", compat="paper-code")
    assert synthetic.rate(5) == pytest.approx(0.015)
    assert synthetic.decisions == "last-epoch"


def test_an_option_replaces_one_number_and_class_vectors_have_their_own_rate():
    assert chosen(preset="cub", learning_rate=0.01, positive_weight=0.5).phase(3).positive_weight == 0.5
    assert chosen(preset="cub", learning_rate=0.01).rate(0) == 0.01
    assert chosen().batch_size == 512
    assert [batch_of_cached(rows) for rows in (10, 600, 3_000, 32_767, 32_768, 10**8)] == [8, 8, 32, 256, 512, 512]
    assert chosen(preset="cifar100").batch_size == 64
    assert chosen(tune="class-vectors", preset="cifar100").learning_rate == 0.003
