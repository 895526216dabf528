"""The help: current in docs/, readable at 80 columns, quick."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_help_page_is_current():
    done = subprocess.run(
        [sys.executable, "-m", "cleanctl.cli.help_pages"], capture_output=True, text=True, check=True, cwd=ROOT
    )
    page = (ROOT / "docs" / "help.md").read_text()
    assert page == done.stdout, "run: python -m cleanctl.cli.help_pages > docs/help.md"
    assert max(len(line) for line in page.splitlines()) <= 80


def test_every_promised_verb_is_there():
    done = subprocess.run([sys.executable, "-m", "cleanctl", "--help"], capture_output=True, text=True, check=True)
    for verb in ("embed", "import", "select", "adapt", "train", "eval", "prompts", "reproduce", "demo", "doctor"):
        assert verb in done.stdout


def test_help_loads_nothing_that_takes_long():
    """torch and the like take seconds, rich and the others a tenth of one each."""
    command = [sys.executable, "-X", "importtime", "-m", "cleanctl", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "cleanctl.cli" in loaded
    assert not loaded & {"torch", "zarr", "open_clip", "numpy", "pyarrow", "pydantic", "rich", "importlib.metadata"}


def test_a_verb_loads_no_other_verbs_options_and_results(tmp_path):
    """A frozen dataclass is made in a millisecond, and there are a hundred and twenty."""
    code = "import atexit, sys; atexit.register(lambda: print(*sys.modules)); from cleanctl.cli import app; app()"
    command = [sys.executable, "-c", code, "diff", "a", "b", "--store", "none.zarr"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 4, done.stderr[-500:]
    loaded = {*done.stdout.split()}
    assert "pydantic" not in loaded, "typer converts values by it"
    of_verbs = {path.stem for path in (ROOT / "cleanctl" / "results").glob("*.py")} - {"__init__", "result"}
    of_verbs = {f"cleanctl.{room}.{name}" for room in ("config", "results", "cli") for name in of_verbs}
    assert of_verbs & loaded == {"cleanctl.config.diff", "cleanctl.cli.diff", "cleanctl.results.diff"}
