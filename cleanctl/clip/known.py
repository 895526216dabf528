"""open_clip's tables, architectures and tags of weights, without open_clip itself, which takes seconds to load.

Both come from its own files: the folder `model_configs`, and its module `pretrained`, which is loaded under another
name, so that the package's `__init__` with all networks does not run. Where open_clip is loaded already, or laid out
in another way, it is asked itself.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import sys
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

_ALIAS = "_cleanctl_open_clip"
_PARTS = ("embed_dim", "vision_cfg", "text_cfg")  # what open_clip takes for an architecture's configuration
_UNUSED = "safetensors.torch"  # `pretrained` goes without where it is absent; it loads torch


def architectures() -> list[str]:
    """The names that `--model` takes beside local-dir: and hf-hub:"""
    if "open_clip" not in sys.modules and (configs := _configs()):
        return list(configs)
    import open_clip

    return list(open_clip.list_models())


def architecture(name: str) -> dict[str, Any] | None:
    """Its configuration, a copy; None of a name that is not known."""
    if "open_clip" not in sys.modules and (configs := _configs()):
        return json.loads(configs[name]) if name in configs else None
    import open_clip

    return open_clip.get_model_config(name) if name in open_clip.list_models() else None


def tags() -> Any:
    """A module with open_clip's list_pretrained, list_pretrained_tags_by_model, is_pretrained_cfg and
    get_pretrained_cfg."""
    if "open_clip" not in sys.modules and (found := _pretrained()) is not None:
        return found
    import open_clip

    return open_clip


@cache
def _configs() -> dict[str, str]:
    """name → JSON; empty where there is no such folder."""
    files = sorted(Path(_folder(), "model_configs").glob("*.json"))
    texts = {path.stem: path.read_text(encoding="utf-8") for path in files}
    return {name: text for name, text in texts.items() if all(part in json.loads(text) for part in _PARTS)}


@cache
def _pretrained() -> ModuleType | None:
    alias = ModuleType(_ALIAS)
    alias.__path__ = [_folder()]
    spared = _UNUSED not in sys.modules
    sys.modules[_ALIAS] = alias
    if spared:
        sys.modules[_UNUSED] = None  # type: ignore[assignment]
    try:
        return importlib.import_module(f"{_ALIAS}.pretrained")
    except ImportError:
        return None
    finally:
        if spared:
            del sys.modules[_UNUSED]


def _folder() -> str:
    """Where open_clip is installed; a folder that does not exist where it is not."""
    spec = importlib.util.find_spec("open_clip")
    return next(iter(spec.submodule_search_locations or ()), os.devnull) if spec else os.devnull
