"""Two "devices" whose processes send large messages; one is killed at a random moment. Says how each round ended.

Arguments: the number of rounds, and a seed.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
import time
from pathlib import Path

from cleanctl.config import EmbedConfig
from cleanctl.distributed.devices import embed_on_devices
from cleanctl.errors import CleanctlError
from cleanctl.progress import SILENT


def send_much(config, store, progress):
    """Stands for an embedding: megabytes of messages from two threads, until one of the processes was killed."""
    (store / str(config.shard).replace("/", "-of-")).write_text(str(os.getpid()))

    def send():
        while not (store / "killed").exists():
            progress.note("x" * random.randrange(1, 2_000_000))

    threads = [threading.Thread(target=send) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def kill_soon(victim: Path, delay: float) -> None:
    while not (victim.exists() and victim.read_text()):
        time.sleep(0.002)
    time.sleep(delay)
    os.kill(int(victim.read_text()), signal.SIGKILL)
    (victim.parent / "killed").touch()


if __name__ == "__main__":
    rounds, seed = map(int, sys.argv[2:])
    chance = random.Random(seed)
    for number in range(rounds):
        folder = Path(sys.argv[1]) / str(number)
        folder.mkdir()
        arguments = (folder / f"{chance.randrange(2)}-of-2", chance.random() / 4)
        threading.Thread(target=kill_soon, args=arguments, daemon=True).start()
        config = EmbedConfig(source=".", devices=("cpu", "cpu"))
        try:
            embed_on_devices(config, folder, embed=send_much, progress=SILENT)
        except CleanctlError as error:
            sys.stdout.write(f"{error}\n")
            sys.stdout.flush()
