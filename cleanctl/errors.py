"""What can go wrong, and the exit code that says so.

    CleanctlError
    ├── UsageError          2   the command line (or the arguments of an API call) makes no sense
    ├── InputError          3   images, labels, arrays or weights are not what they must be
    ├── StoreError          4   the store and the request disagree: missing, locked, incomplete, other model
    ├── MissingPackageError 5   something is not installed
    └── InterruptedRun    130   stopped by SIGINT or SIGTERM; finished work is kept

A user's mistake is told in three parts: what was found, what follows from it, what to do. Impossible states are
`assert`s, never one of these.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any


class CleanctlError(Exception):
    """A failure that a person can act on.

    `found` is the fact with the values quoted, `so` its consequence, `do` the remedy; each is one sentence.
    """

    exit_code = 1

    def __init__(self, found: str, *, so: str = "", do: str = "") -> None:
        super().__init__(found, so, do)
        self.found = found
        self.so = so
        self.do = do

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (type(self), self.found, self.so, self.do)  # keyword arguments do not pickle by themselves

    def __str__(self) -> str:
        return " ".join(part for part in (self.found, self.so, self.do) if part)


def _again(kind: type[CleanctlError], found: str, so: str, do: str) -> CleanctlError:
    return kind(found, so=so, do=do)


class UsageError(CleanctlError):
    exit_code = 2


class InputError(CleanctlError):
    exit_code = 3


class StoreError(CleanctlError):
    exit_code = 4


class MissingPackageError(CleanctlError):
    exit_code = 5

    @classmethod
    def of(cls, package: str, *, extra: str, needed_for: str) -> MissingPackageError:
        """The error for an optional `package` that `extra` brings."""
        return cls(
            f"The package {package} is not installed.",
            so=f"It is needed for {needed_for}.",
            do=f"Install it with: {install_command(extra)}",
        )


class InterruptedRun(CleanctlError):
    exit_code = 130


def first_line(exc: BaseException, *, lines: int = 1) -> str:
    """What another library's error says, in at most 300 characters: its first line or so, else its kind."""
    told = [line.strip() for line in str(exc).splitlines() if line.strip()]
    text = " ".join(told[:lines]) if told else type(exc).__name__
    return text if len(text) < 300 else text[:297] + "..."


def install_command(extra: str, *, package: Path = Path(__file__).parent) -> str:
    """What to type to have `extra` beside the copy of cleanctl that lies at `package`.

    PyPI's `cleanctl` is not ours, so the command names the place that this copy came from: the checkout that it lies
    in, else what the installer wrote into direct_url.json (PEP 610), else a word to be replaced.
    """
    import json
    import shlex
    from importlib import metadata

    checkout = package.parent
    if (checkout / "pyproject.toml").is_file():
        return f"pip install -e {shlex.quote(_of_folder(checkout, extra))}"
    found = next(iter(metadata.distributions(name="cleanctl", path=[str(checkout)])), None)
    text = found and found.read_text("direct_url.json")
    if text and (requirement := _of_origin(json.loads(text), extra)):
        return f"pip install {shlex.quote(requirement)}"
    return f"pip install 'cleanctl[{extra}] @ URL'   (URL: that of the file or repository that cleanctl came from)"


def _of_origin(origin: dict[str, Any], extra: str) -> str:
    """The requirement of a PEP 610 record; empty if what it names is gone."""
    from urllib.request import url2pathname

    url = str(origin["url"])
    if url.startswith("file://"):
        local = Path(url2pathname(url.removeprefix("file://")))
        if not local.exists():
            return ""
        if "dir_info" in origin:
            return _of_folder(local, extra)
    if version := origin.get("vcs_info"):
        url = f"{version['vcs']}+{url}@{version.get('requested_revision') or version['commit_id']}"
    part = f"#subdirectory={origin['subdirectory']}" if "subdirectory" in origin else ""
    return f"cleanctl[{extra}] @ {url}{part}"


def _of_folder(folder: Path, extra: str) -> str:
    return f"{'.' if folder == Path.cwd() else folder}[{extra}]"
