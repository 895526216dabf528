"""The house: imports run one way, the command line starts light, nothing here shadows another package's name."""

from __future__ import annotations

import ast
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# Every room may import what stands before it, and its own files.
ORDER = (
    "lazy", "errors", "meant", "user_files", "progress", "registry", "records", "runtime", "results", "paths",
    "strategy", "config",
    "files", "images", "datasets", "clip", "prompts", "store", "score", "selection", "embed", "train", "adapt",
    "evaluate", "conflicts", "report", "review", "export", "status", "distributed", "reproduce", "demo",
    "doctor", "api", "cli",
)  # fmt: skip
BASE = ORDER[: ORDER.index("files")]
OPEN = {"__init__", "__main__"}  # the package's face and its `python -m`
SOURCES = sorted((ROOT / "cleanctl").rglob("*.py"))
KERNELS = sorted((ROOT / "kernels").rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))


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
    if part in OPEN:
        return
    for module, top in imports_of(path):
        root = module.split(".")[0]
        if root == "cleanctl":
            target = module.split(".")[1] if "." in module else ""
            assert target == "" or ORDER.index(target) <= ORDER.index(part), f"{part} imports {module}"
        elif part in BASE and top:
            assert root in sys.stdlib_module_names, f"the base loads {module} at import"
        elif part == "cli" and "tables" not in path.parts and top:  # tables loads with a result
            assert root in sys.stdlib_module_names | {"typer"}, f"the command line loads {module} before a verb runs"


def test_no_two_files_import_each_other_in_a_circle():
    graph = {}
    for path in SOURCES + KERNELS:
        base = ROOT / ("kernels" if path in KERNELS else ".")
        name = ".".join(path.relative_to(base).with_suffix("").parts).removesuffix(".__init__")
        graph[name] = path
    edges = {name: {target for target in _targets(path, graph) if target != name} for name, path in graph.items()}
    circles = sorted({tuple(sorted(circle)) for name in edges if (circle := _circle_from(name, edges))})
    assert circles == []


def _targets(path: Path, known: dict[str, Path]) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            found.update({f"{node.module}.{alias.name}" for alias in node.names} | {node.module})
        elif isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
    faces = {name for name in found if name in known and known[name].name == "__init__.py"}
    return {name for name in found if name in known} - faces


def _circle_from(start: str, edges: dict[str, set[str]]) -> list[str]:
    """The files from which `start` is reached and which it reaches, if there are any."""

    def reached(name: str) -> set[str]:
        seen: set[str] = set()
        todo = [name]
        while todo:
            fresh = edges[todo.pop()] - seen
            seen |= fresh
            todo += fresh
        return seen

    ahead = reached(start)
    return sorted(name for name in ahead if start in reached(name)) if start in ahead else []


@pytest.mark.parametrize("path", KERNELS, ids=lambda path: str(path.relative_to(ROOT)))
def test_kernels_need_arrays_and_triton_alone(path):
    allowed = {"numpy", "threadpoolctl", "array_api_compat", "torch", "triton", "cleanctl_kernels"}
    for module, _ in imports_of(path):
        assert module.split(".")[0] in sys.stdlib_module_names | allowed, f"kernels import {module}"


def test_no_local_package_is_named_kernels():
    assert not (ROOT / "kernels" / "__init__.py").exists()
    spec = importlib.util.find_spec("kernels")
    assert spec is None or not str(spec.origin).startswith(str(ROOT))


def test_help_loads_nothing_heavy():
    heavy = "('torch', 'zarr', 'open_clip', 'numpy')"
    code = f"import sys; from cleanctl.cli import app; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("path", SOURCES + KERNELS + TESTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_stay_readable(path):
    text = path.read_text()
    tree = ast.parse(text)
    assert len(text.splitlines()) <= 400
    assert path in TESTS or ast.get_docstring(tree), "every file opens with what it is for"
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    most = 90 if path.name.endswith("_triton.py") else 60  # a kernel is one function, however long its arithmetic
    assert [node.name for node in functions if _lines(node) > most] == []


def _lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Of its body; parameters are options, and a docstring with examples is help."""
    body = function.body[1:] if ast.get_docstring(function) and len(function.body) > 1 else function.body
    return (body[-1].end_lineno or 0) - body[0].lineno + 1
