"""Everything a person does with a checkout: `nox -s demo`, `nox -s tests`, `nox -s lint types bench`; `nox -l` has all.

Each session makes its environment with uv from constraints.txt, in `.nox/` (or `--envdir`), and builds FFCV where the
system libraries that it compiles against are there or can be installed (apt, as root); else it goes on without FFCV.
"""

from __future__ import annotations

import functools
import os
import pathlib
import shutil
import subprocess
import sys

import nox
import nox.virtualenv

nox.needs_version = ">=2024.4.15"
nox.options.default_venv_backend = "uv"
nox.options.sessions = ["lint", "types", "tests"]
nox.options.reuse_venv = "yes"
nox.options.error_on_missing_interpreters = False  # sessions of a Python that is not installed are skipped
os.environ.setdefault("UV_PYTHON_DOWNLOADS", "never")
# pyenv's Pythons that no project has chosen are not on the path.
_PYENV = pathlib.Path(os.environ.get("PYENV_ROOT", pathlib.Path.home() / ".pyenv"))
os.environ["PATH"] = os.pathsep.join([os.environ["PATH"], *map(str, sorted(_PYENV.glob("versions/3.1[1-9]*/bin")))])

DEBIAN_PACKAGES = ("pkg-config", "libturbojpeg0-dev", "libopencv-dev")
LIBRARIES = ("opencv4", "libturbojpeg")
BROWSER_PACKAGES = ("chromium", "chromium-driver")  # the report's page is tested in it
PYTHONS = ["3.11", "3.12", "3.13"]
# What differs between Pythons and machines: processes, threads, loaders, the end of a process.
CORE = ("tests/test_runtime.py", "tests/cli/test_ends.py", "tests/store", "tests/images/test_loaders.py")
# A process a core, each with files of its own, in the order of tests/conftest.py; `-- -n 0` runs in one.
PARALLEL = ("-n", "logical", "--maxprocesses", "8", "--dist", "loadfile", "--no-loadscope-reorder")
PINNED = "import os, sys; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); os.execvp('pytest', sys.argv[1:])"


def _use_uv() -> None:
    """nox looks for uv once, before it reads this file: where uv is missing, it is installed and nox starts again."""
    if nox.virtualenv.HAS_UV:
        return
    if "CLEANCTL_NOX_RESTARTED" not in os.environ:
        done = subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "uv"])
        if done.returncode == 0:
            os.environ["CLEANCTL_NOX_RESTARTED"] = "1"
            os.execv(sys.executable, [sys.executable, "-m", "nox", *sys.argv[1:]])
    sys.exit("The sessions need uv, and it could not be installed. Type: pip install uv")


_use_uv()


def _has_libraries() -> bool:
    if shutil.which("pkg-config") is None:
        return False
    return all(subprocess.run(["pkg-config", "--exists", name]).returncode == 0 for name in LIBRARIES)


def _install_debian(what: str, packages: tuple[str, ...]) -> None:
    """Installs Debian's packages where this is root and there is apt; whether they came is for the caller to see."""
    if shutil.which("apt-get") is None or not hasattr(os, "geteuid") or os.geteuid() != 0:
        return
    print(f"Installing {what}: {' '.join(packages)}")
    quiet = {"stdout": subprocess.DEVNULL, "env": {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}}
    subprocess.run(["apt-get", "update", "-qq"], **quiet)
    subprocess.run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages], **quiet)


def _find_browser() -> None:
    """Chromium and its driver for the tests of the report's page, which are skipped without (but fail in CI)."""
    if not (shutil.which("chromium") and shutil.which("chromedriver")):
        _install_debian("a browser for the tests of the report", BROWSER_PACKAGES)


@functools.cache
def _ffcv_extra() -> str:
    """`,ffcv` if FFCV can be built here, after trying to make it so; else an empty string, and why."""
    if _has_libraries():
        return ",ffcv"
    words = " ".join(DEBIAN_PACKAGES)
    _install_debian("what FFCV compiles against", DEBIAN_PACKAGES)
    if _has_libraries():
        return ",ffcv"
    print("FFCV is left out: its system libraries are missing. Images are read by the torch loader instead.")
    print(f"To have FFCV, type: sudo apt-get install -y {words}   and run this session again.")
    return ""


def _has_card() -> bool:
    if shutil.which("nvidia-smi") is None:
        return False
    done = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True)
    return done.returncode == 0 and "GPU " in done.stdout


def _install(session: nox.Session, *groups: str, device: str = "cpu") -> None:
    """The package (editable), its extras and dependency groups, at the versions of constraints.txt."""
    arguments = ["--constraint", "constraints.txt", "--editable", f".[{device}{_ffcv_extra()}]"]
    for group in groups:
        arguments += ["--group", group]
    if os.environ.get("PYTHONDONTWRITEBYTECODE"):  # else every process of every test compiles torch's sources again
        arguments.append("--compile-bytecode")
    session.install("--quiet", *arguments)


@nox.session
def demo(session: nox.Session) -> None:
    """Set everything up and do the main job on built-in data. Arguments go to `cleanctl demo`."""
    _install(session)
    session.run("cleanctl", "demo", *session.posargs)


@nox.session
def tests(session: nox.Session) -> None:
    """Run the tests. Arguments go to pytest, e.g. `-- -m slow` or `-- tests/store`."""
    _install(session, "test")
    _find_browser()
    session.run("pytest", "-q", "--durations=10", *PARALLEL, *session.posargs)


@nox.session
def gpu(session: nox.Session) -> None:
    """Run the tests that need a CUDA device and bench.gpu, with the packages of the extra `gpu`; skipped without one.

    Arguments go to the bench, e.g. `-- --seconds 60`. bench/README.md has the same without nox.
    """
    if not _has_card():
        session.skip("there is no CUDA device: nvidia-smi is missing or lists none")
    _install(session, "test", device="gpu")
    session.run("pytest", "-q", "-m", "gpu")
    session.run("python", "-m", "bench.gpu", "--out", "bench/results/gpu.jsonl", *session.posargs)


@nox.session
@nox.parametrize("triton", ["3.2.0", "3.6.0"])
def kernels(session: nox.Session, triton: str) -> None:
    """Compile the kernels for GPUs and run them interpreted, with torch 2.6's and torch 2.11's Triton; no GPU needed.

    torch stays the one of constraints.txt, since compiling does not touch it; these interpreters need an older NumPy.
    """
    session.install(
        "--quiet", "--constraint", "constraints.txt", "torch", "numpy", "pytest", "pytest-timeout", "hypothesis"
    )
    session.install("--quiet", "--no-deps", f"triton=={triton}", "numpy<2.4")
    every = ("-m", "not gpu", "tests/kernels")  # slow: every variant of a kernel, and an A100's
    session.run("pytest", "-q", *(session.posargs or every), env={"PYTHONPATH": "kernels"})


@nox.session(python=PYTHONS)
def pythons(session: nox.Session) -> None:
    """Run the tests on each Python that is installed: `nox -s pythons-3.12`. Arguments go to pytest."""
    _install(session, "test")
    _find_browser()
    session.run("pytest", "-q", *PARALLEL, *session.posargs)


@nox.session(python=PYTHONS)
def onecore(session: nox.Session) -> None:
    """Run the core of the tests on one processor core: `nox -s onecore-3.12`. Arguments go to pytest."""
    _install(session, "test")
    session.run("python", "-c", PINNED, "pytest", "-q", *(session.posargs or CORE))


@nox.session
def interop(session: nox.Session) -> None:
    """Let the libraries that `export` writes for read what it wrote: datasets, webdataset, pycocotools."""
    _install(session, "interop")
    session.run("pytest", "-q", "-k", "reads_its", *(session.posargs or ["tests/export"]))


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and formatting with ruff; `-- --fix` mends what it can."""
    session.install("--quiet", "--constraint", "constraints.txt", "--group", "lint")
    fix = "--fix" in session.posargs
    session.run("ruff", "check", *session.posargs, ".")
    session.run("ruff", "format", *([] if fix else ["--check"]), ".")


@nox.session
def types(session: nox.Session) -> None:
    """Check the types of the package and the kernels with mypy."""
    _install(session, "types")
    session.run("mypy", *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """Build the site of docs/ into site/, warnings as errors; `-- serve` shows it while you write."""
    session.install("--quiet", "--constraint", "constraints.txt", "--group", "docs")
    if session.posargs:
        session.run("mkdocs", *session.posargs)
        return
    session.run("mkdocs", "build", "--strict", env={"NO_MKDOCS_2_WARNING": "1"})


@nox.session
def bench(session: nox.Session) -> None:
    """Run bench suites: `nox -s bench -- embed select train`, all without arguments. Results go to bench/results/."""
    _install(session, "bench")
    session.run("python", "-m", "bench", *session.posargs)
