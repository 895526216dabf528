"""The scripted service, importable by the tests of this folder."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

_spec = importlib.util.spec_from_file_location("service", Path(__file__).with_name("service.py"))
sys.modules["service"] = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(sys.modules["service"])
