"""What cleanctl sets for its threads before a library reads it, from wherever cleanctl is entered."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from cleanctl.runtime import THREAD_SETTINGS


def run(code, *arguments, **environment):
    """(stdout, stderr) of a fresh interpreter in which a user has set nothing but `environment`."""
    unset = {*THREAD_SETTINGS, "GOMP_SPINCOUNT", "KMP_BLOCKTIME"}
    kept = {name: value for name, value in os.environ.items() if name not in unset}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, env=kept | environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout, done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="asks GNU OpenMP, which torch uses on Linux")
def test_no_thread_of_openmp_spins():
    """GNU OpenMP says what it read, once for each copy of it that a library brings."""
    _, told = run("import cleanctl.api, torch, sklearn.cluster", OMP_DISPLAY_ENV="true")
    policies = [line.split("=")[1].strip() for line in told.splitlines() if "OMP_WAIT_POLICY" in line]
    assert policies
    assert set(policies) == {"'PASSIVE'"}


@pytest.mark.parametrize("entry", ["cleanctl", "cleanctl.cli", "cleanctl.api"])
def test_it_is_set_before_a_library_is_loaded_that_reads_it(entry):
    code = f"import os, sys, {entry}; print(os.environ['OMP_WAIT_POLICY'], *sys.modules)"
    policy, *loaded = run(code)[0].split()
    assert policy == "passive"
    assert not {"torch", "numpy", "numba"} & set(loaded)


def test_what_a_user_has_set_stays():
    code = "import os, cleanctl; print(os.environ['OMP_WAIT_POLICY'], os.environ['NUMBA_THREADING_LAYER'])"
    assert run(code, OMP_WAIT_POLICY="active")[0].split() == ["active", "workqueue"]
    assert run(code, NUMBA_THREADING_LAYER="omp")[0].split() == ["passive", "omp"]


FORK = """
import os, sys
from pathlib import Path
import cleanctl.api, numpy as np
from PIL import Image
from cleanctl.files.local import LocalStorage
from cleanctl.images.loaders import LoaderRequest, open_loader
from cleanctl.records import PixelSpec

folder = Path(sys.argv[1])
Image.new("RGB", (9, 9)).save(folder / "a.png")
files = LocalStorage.of(folder)
request = LoaderRequest(files=files, keys=["a.png"], spec=PixelSpec(size=8), beton=folder / "x.beton")
loader = open_loader(request, "ffcv")
assert len(list(loader.batches(np.array([0]), batch_size=1))) == 1

import numba

print(numba.threading_layer(), "numba.np.ufunc.tbbpool" in sys.modules)
sys.stdout.flush()
child = os.fork()
if not child:
    numba.set_num_threads(1)
    sys.exit(7)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_numba_computes_in_threads_that_survive_a_fork(tmp_path):
    pytest.importorskip("ffcv")
    assert run(FORK, tmp_path)[0].split() == ["workqueue", "False", "7"]


ENDING = """
import atexit, sys, threading, time
from cleanctl.runtime import ending_promptly

class Slow:
    def __del__(self):
        time.sleep(30)

with ending_promptly():
    kept = Slow()
    kept.itself = kept  # freed with the modules
    atexit.register(print, "at exit", flush=False)
    threading.Timer(0.2, print, ["thread"]).start()
    {end}
"""


@pytest.mark.parametrize(
    ("end", "code"),
    [("pass", 0), ("sys.exit(4)", 4), ("sys.exit('no')", 1), ("raise KeyboardInterrupt", 130), ("1 / 0", 1)],
)
def test_a_process_ends_with_its_code_and_all_its_output(end, code):
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", ENDING.format(end=end)], capture_output=True, text=True, timeout=60)
    assert done.returncode == code, done.stderr
    assert done.stdout.split("\n") == ["thread", "at exit", ""]
    assert ("Traceback" in done.stderr) == (end in ("raise KeyboardInterrupt", "1 / 0"))
    assert time.monotonic() - started < 30
