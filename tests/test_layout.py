"""The house: imports run one way, the command line starts light, nothing here shadows another package's name."""

from __future__ import annotations

import ast
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
BASE = {"errors", "config", "records", "runtime", "progress"}
STAGES = {"data", "embed", "store", "score", "selection", "train", "evaluate", "report"}
MAY_ALSO_USE = {"embed": {"data"}, "train": {"data"}, "evaluate": {"data"}}
SOURCES = sorted((ROOT / "cleanctl").rglob("*.py"))
KERNELS = sorted((ROOT / "kernels").rglob("*.py"))


def imports_of(path: Path) -> list[tuple[str, bool]]:
    """(module, at module level and at run time) for each import of a file."""
    found = []

    def walk(node: ast.AST, top: bool) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                found.extend((alias.name, top) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0, f"{path}: relative import"
                found.append((child.module or "", top))
            else:
                typing_only = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test)
                inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
                walk(child, top and not typing_only and not inside)

    walk(ast.parse(path.read_text()), True)
    return found


def part_of(path: Path) -> str:
    return path.relative_to(ROOT / "cleanctl").parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_one_way(path):
    part = part_of(path)
    for module, top in imports_of(path):
        root = module.split(".")[0]
        if root == "cleanctl":
            target = module.split(".")[1] if "." in module else ""
            if part in BASE:
                assert target in BASE | {""}, f"the base imports {module}"
            elif part in STAGES:
                allowed = BASE | {"", part, "store"} | MAY_ALSO_USE.get(part, set())
                assert target in allowed, f"stage {part} imports {module}"
        elif part in BASE and top:
            assert root in sys.stdlib_module_names, f"the base loads {module} at import"
        elif part in {"cli"} and top:
            assert root in sys.stdlib_module_names | {"typer"}, f"the command line loads {module} before a verb runs"


@pytest.mark.parametrize("path", KERNELS, ids=lambda path: str(path.relative_to(ROOT)))
def test_kernels_need_torch_and_triton_alone(path):
    for module, _ in imports_of(path):
        root = module.split(".")[0]
        assert root in sys.stdlib_module_names | {"torch", "triton", "cleanctl_kernels"}, f"kernels import {module}"


def test_no_local_package_is_named_kernels():
    assert not (ROOT / "kernels" / "__init__.py").exists()
    spec = importlib.util.find_spec("kernels")
    assert spec is None or not str(spec.origin).startswith(str(ROOT))


def test_help_loads_nothing_heavy():
    heavy = "('torch', 'zarr', 'open_clip', 'numpy')"
    code = f"import sys; from cleanctl.cli import app; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("path", SOURCES + KERNELS, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_stay_readable(path):
    assert len(path.read_text().splitlines()) <= 450
    assert ast.get_docstring(ast.parse(path.read_text())), "every file opens with what it is for"
