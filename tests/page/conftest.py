"""The helpers of this folder, as modules that its tests import by name; one browser a test module."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # pytest's importlib mode puts no folder on sys.path

from browser import Browser


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """Debian's Chromium without a window. Where there is none the tests are skipped, but not in CI."""
    programs = [shutil.which("chromium"), shutil.which("chromedriver")]
    if None in programs:
        said = "chromium and chromedriver are not installed (Debian: chromium, chromium-driver)"
        if os.environ.get("CI"):
            pytest.fail(said)
        pytest.skip(said)
    browser = Browser(*programs, tmp_path_factory.mktemp("downloads"))
    yield browser
    browser.quit()
