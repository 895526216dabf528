"""Runs `embed` again and again in forked processes that kill themselves, then once to its end.

Arguments: source, model folder, loader, a store for an uninterrupted run, a store for the kills, then a list of events:
`put:3` dies inside the third put, `write:7` just before the seventh durable write, `written:7` just after it,
`full:7` finds the disk full as it synchronises its seventh file, `change:7` dies before its seventh change to a file.
All events happen to one store, one after the other. With `every` instead of a list, a run is killed before each change
that it makes to a file, each time from a fresh store (the given name, then `-7` and so on), which another run then
finishes.
Everything is imported once; each attempt is a process.
"""

from __future__ import annotations

import errno
import itertools
import os
import signal
import sys
import tempfile
import traceback
from pathlib import Path

import open_clip  # noqa: F401 - imported before the forks, because it takes seconds
import torch
import torchvision  # noqa: F401

import cleanctl.api
import cleanctl.datasets.source
import cleanctl.embed.embed
import cleanctl.images.loaders
import cleanctl.store.files
import cleanctl.store.journal
import cleanctl.store.schema
import cleanctl.store.writer
from cleanctl.config import EmbedConfig
from cleanctl.errors import CleanctlError

if "ffcv" in sys.argv[:4]:
    import cleanctl.images.ffcv_loader
    import cleanctl.images.packing_loader

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", 2)))  # FFCV sets it to 1
TEMPORARY = tempfile.gettempdir()  # finding it out makes a file


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def counting(function, number, *, before):
    calls = 0

    def wrapped(*args, **kwargs):
        nonlocal calls
        calls += 1
        if calls == number and before:
            die()
        result = function(*args, **kwargs)
        if calls == number:
            die()
        return result

    return wrapped


def filling(function, number):
    """The disk is full from that call on."""
    calls = 0

    def wrapped(handle):
        nonlocal calls
        calls += 1
        if calls >= number:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return function(handle)

    return wrapped


def changing(number):
    """An audit hook that dies before the n-th change to a file: one opened to be written, named or removed."""
    calls = 0

    def hook(event, args):
        nonlocal calls
        if event not in ("open", "os.rename", "os.link", "os.remove"):
            return
        if event == "open" and not (isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR)):
            return
        if not isinstance(args[0], (str, os.PathLike)) or not str(args[0]).startswith(TEMPORARY):
            return
        calls += 1
        if calls == number:
            die()

    return hook


def arm(event: str) -> None:
    kind, _, number = event.partition(":")
    if kind == "change":
        sys.addaudithook(changing(int(number)))
    if kind == "full":
        os.fsync = filling(os.fsync, int(number))
    if kind == "put":
        writer = cleanctl.store.writer.SplitWriter
        writer.put = counting(writer.put, int(number), before=False)
    elif kind in ("write", "written"):
        wrapped = counting(cleanctl.store.files.write_file, int(number), before=kind == "write")
        cleanctl.store.files.write_file = cleanctl.store.journal.write_file = wrapped


def run(source, model, store, loader, **more) -> None:
    # Small blocks and a journal entry for every batch, so that a few images exercise all of it.
    cleanctl.store.schema.BLOCK_ROWS, cleanctl.store.schema.CHUNK_ROWS = 16, 8
    cleanctl.store.writer.SEGMENT_ROWS = 1
    config = EmbedConfig(
        source=Path(source),
        model=f"local-dir:{model}",
        loader=loader,
        device="cpu",
        batch_size=4,
        workers=0,
        **more,
    )
    cleanctl.api.embed(config, store=store)


def start(arguments, event: str, **more) -> int:
    """The number of a forked process that embeds until it ends or kills itself."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            arm(event)
            run(*arguments, **more)
            code = 0
        except CleanctlError as error:
            code = error.exit_code
        finally:
            if code:
                traceback.print_exc()
            os._exit(code)
    return child


def wait(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def attempt(arguments, event: str, **more) -> int:
    return wait(start(arguments, event, **more))


def kill_at_every_change(source, model, killed, loader) -> int:
    """0 if all runs after the kills ended well."""
    for number in itertools.count(1):
        arguments = (source, model, f"{killed}-{number}.zarr", loader)
        code = attempt(arguments, f"change:{number}")
        sys.stdout.write(f"change:{number} {code}\n")
        sys.stdout.flush()
        if not code:
            return 0  # a run makes no more changes
        if attempt(arguments, "none"):
            return 1
    raise AssertionError


if __name__ == "__main__":
    source, model, loader, whole, killed, events = sys.argv[1:]
    if attempt((source, model, whole, loader), "none"):
        sys.exit(1)
    if events == "every":
        sys.exit(kill_at_every_change(source, model, killed.removesuffix(".zarr"), loader))
    arguments = (source, model, killed, loader)
    for event in events.split(","):
        sys.stdout.write(f"{event} {attempt(arguments, event)}\n")
        sys.stdout.flush()
    sys.exit(attempt(arguments, "none"))
