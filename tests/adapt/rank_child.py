"""One process of an `adapt` that a test starts with torchrun (or alone): `store name tune [die]`.

Writes what its rank was told to NAME-RANK.json beside the store. die: rank 1 ends without a word after its third step.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path

import torch

from cleanctl import api
from cleanctl.adapt.trainer import State, Trainer
from cleanctl.config import AdaptConfig
from cleanctl.errors import CleanctlError
from cleanctl.runtime import torchrun_place


def die_in_the_middle() -> None:
    original = Trainer._step

    def step(self: Trainer, state: State, *rest: object) -> None:
        if self.features.ranks.number == 1 and state.step == 3:
            os._exit(9)
        original(self, state, *rest)

    Trainer._step = step


def main(store: str, name: str, tune: str, *more: str) -> int:
    torch.set_num_threads(1)
    if more:
        die_in_the_middle()
    settings = {"epochs": 2, "batch_size": 15, "device": "cpu", "loader": "torch", "workers": 0, "learning_rate": 0.003}
    try:
        result = api.adapt(AdaptConfig(tune=tune, name=name, **settings), store=Path(store))
    except CleanctlError as exc:
        sys.stderr.write(f"{exc}\n")
        return exc.exit_code
    rank, _ = torchrun_place()
    Path(store).with_name(f"{name}-{rank}.json").write_text(json.dumps(asdict(result)))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
