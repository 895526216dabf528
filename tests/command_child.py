"""Becomes `python *WORDS` in a process that the fork server has forked; commands.py gives what is not defined here."""

from __future__ import annotations

import importlib
import os
import runpy
import signal
import sys

import torch

for fd, output in zip((1, 2), OUTPUTS):  # noqa: F821
    os.dup2(output.fileno(), fd)
    output.close()
sys.stdout, sys.stderr = (
    open(fd, "w", encoding="utf-8", closefd=False, buffering=1)  # noqa: SIM115 - as long as the process
    for fd in (1, 2)
)
os.environ.clear()
os.environ.update(ENVIRONMENT)  # noqa: F821
os.chdir(FOLDER)  # noqa: F821
signal.signal(signal.SIGINT, signal.default_int_handler)  # what a shell starts behind ignores it
if "OMP_NUM_THREADS" in os.environ:
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
folders = [folder for folder in os.environ.get("PYTHONPATH", "").split(os.pathsep) if folder]
sys.path[:0] = [folder for folder in folders if folder not in sys.path]
importlib.invalidate_caches()

first, *rest = WORDS  # noqa: F821
if first == "-m":
    sys.argv = rest
    runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
elif first == "-c":
    sys.argv = ["-c", *rest[1:]]
    exec(compile(rest[0], "<string>", "exec"), {"__name__": "__main__"})
else:
    sys.argv = [first, *rest]
    sys.path.insert(0, os.path.dirname(first))
    runpy.run_path(first, run_name="__main__")
