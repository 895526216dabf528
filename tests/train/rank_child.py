"""One process of a run that the tests start with torchrun (or alone): `store recipe method name cache [die]`.

Writes what its rank saw to NAME-RANK.json beside the store. die: rank 1 ends without a word after its fifth step.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import torch
from blobs import MemoryLoader, draw, loader_of, truth

from cleanctl.config import TrainConfig
from cleanctl.errors import CleanctlError
from cleanctl.images.geometry import Crop
from cleanctl.records import PixelSpec
from cleanctl.runtime import torchrun_place
from cleanctl.store import Store
from cleanctl.train import engine, train


def die_in_the_middle() -> None:
    original = engine.Engine._step

    def step(self: engine.Engine, batch: object, state: engine.State) -> torch.Tensor:
        if self.ranks.number == 1 and state.step == 5:
            os._exit(9)
        return original(self, batch, state)

    engine.Engine._step = step


def remember_members(seen: list) -> None:
    original = engine.Engine.train_epoch

    def train_epoch(self: engine.Engine, state: engine.State, *rest: object) -> None:
        seen.append([state.members.member_M.tolist(), state.members.label_M.tolist()])
        original(self, state, *rest)

    engine.Engine.train_epoch = train_epoch


def broken_loader_of(split: str, spec: PixelSpec, crop: Crop | None = None) -> MemoryLoader:
    """Three training images cannot be read, of which two are often in the second rank's part."""
    return MemoryLoader(draw(truth(split), seed=1), frozenset({1, 2, 4} if split == "train" else {5}), crop)


def main(store: str, recipe: str, method: str, name: str, cache: str, *more: str) -> int:
    torch.set_num_threads(1)
    seen: list = []
    remember_members(seen)
    if more:
        die_in_the_middle()
    settings = {"recipe": recipe, "method": method, "name": name, "selection": "clean", "device": "cpu", "cache": cache}
    try:
        loader = loader_of if cache == "ram" else broken_loader_of
        result = train(Store.open(Path(store)), TrainConfig(**settings), loader_factory=loader)
    except CleanctlError as exc:
        sys.stderr.write(f"{exc}\n")
        return exc.exit_code
    rank, _ = torchrun_place()
    told = {"members": seen, "last_top1": result.last_top1}
    Path(store).with_name(f"{name}-{rank}.json").write_text(json.dumps(told))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
