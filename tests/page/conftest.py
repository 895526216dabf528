"""The helpers of this folder, as modules that its tests import by name."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # pytest's importlib mode puts no folder on sys.path
