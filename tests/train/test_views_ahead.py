"""Training views that are made for several steps at once are those that each step would make alone."""

from __future__ import annotations

import signal
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
import torch
from blobs import RECIPE, draw

from cleanctl.progress import SILENT
from cleanctl.registry import METHODS
from cleanctl.runtime import StopFlag
from cleanctl.train import augment
from cleanctl.train.engine import Engine, State
from cleanctl.train.methods.method import Compute, Setup
from cleanctl.train.pixels import HeldPixels, Stopped
from cleanctl.train.recipe import Recipe, load_recipe, parse_recipe

pytestmark = pytest.mark.usefixtures("one_thread")
M, K, STEPS = 70, 4, 5
COUNTS = (9, 16, 1, 0, 7)


def recipes() -> list[Recipe]:
    published = load_recipe("cifar10")
    return [
        published,
        replace(published, policy="randaugment", crop="random", load_size=36),
        replace(published, crop="random-resized", policy="autoaugment-imagenet", flip=False),
        replace(published, policy="none"),
    ]


@pytest.mark.parametrize("recipe", recipes(), ids=lambda one: f"{one.crop} {one.policy}")
def test_views_made_together_are_those_made_alone(recipe: Recipe) -> None:
    rng = np.random.default_rng(0)
    side = recipe.load_size
    image = torch.from_numpy(rng.integers(0, 256, (sum(COUNTS), 3, side, side), dtype=np.uint8))
    alone = [
        augment.strong(part, recipe, np.random.default_rng(seed))
        for seed, part in enumerate(image.split(COUNTS))
        if len(part)
    ]
    generators = [np.random.default_rng(seed) for seed in range(len(COUNTS))]
    together = augment.strong(image, recipe, augment.Generators(generators, COUNTS))
    assert torch.equal(together, torch.cat(alone))
    # What is drawn next, of mixing, is what it would be after the step's own view.
    first = np.random.default_rng(0)
    augment.strong(image[: COUNTS[0]], recipe, first)
    assert generators[0].random() == first.random()


def losses(name: str, view_steps: int, *, stop_after: int = 0) -> tuple[list[float], State]:
    recipe = replace(parse_recipe(RECIPE, "tiny"), policy="randaugment")
    label = (np.arange(M) % K).astype(np.int32)
    ok = np.arange(M) % 11 != 3  # some images cannot be read
    torch.manual_seed(0)
    setup = Setup(
        recipe=recipe, num_classes=K, compute=Compute(device="cpu"), label_M=label, selected_M=np.arange(M) % 3 != 0
    )
    method = METHODS.load(name)(setup)
    engine = Engine(method, pixels=HeldPixels(torch.from_numpy(draw(label, seed=1)), ok, "cpu"), seed=0, steps=STEPS)
    engine.view_steps = view_steps
    found: list[float] = []
    step, state, stop = engine._step, State(members=method.members()), StopFlag()

    def watched(*arguments: object) -> torch.Tensor:
        loss = step(*arguments)  # type: ignore[arg-type]
        found.append(float(loss))
        if len(found) == stop_after:
            stop.signal = signal.SIGTERM
        return loss

    engine._step = watched  # type: ignore[method-assign]
    with (
        SILENT.track("test", total=None, unit="images") as task,
        pytest.raises(Stopped) if stop_after else nullcontext(),
    ):
        engine.train_epoch(state, task, stop, lambda: None)
    return found, state


@pytest.mark.parametrize("name", ["mixfix", "finetune", "dividemix"])
def test_steps_on_views_made_together_are_those_on_their_own(name: str) -> None:
    alone, _ = losses(name, 1)
    together, state = losses(name, 3)
    assert len(alone) == state.step == STEPS
    assert together == alone


def test_a_stop_between_two_views_counts_only_the_steps_done() -> None:
    found, state = losses("mixfix", 3, stop_after=2)
    assert (len(found), state.step) == (2, 2)
    assert state.seen <= 2 * parse_recipe(RECIPE, "tiny").batch_size
