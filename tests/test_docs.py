"""What the code cites exists in docs/, and what the docs tell readers to type exists in the program."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import re
import shlex
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest
import typer
import typer.main
from typer.core import TyperCommand
from typer.testing import CliRunner

from cleanctl.api import read_selection
from cleanctl.cli import app
from cleanctl.errors import UsageError

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("cleanctl", "kernels", "bench", "tests")
DOCS = sorted((ROOT / "docs").rglob("*.md"))
PAGES = [*(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "AGENTS.md")), *DOCS]
page = pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)

USAGE_ERROR = typer.BadParameter.__base__  # click's, or that of the copy of click inside typer

# `docs/method.md A.5`, also with more sections behind it: `A.5, A.7`, `A and F`.
SECTION = r"[A-F](?:\.\d+)?\b"
CITATION = re.compile(rf"docs/method\.md\s+({SECTION}(?:(?:, | and ){SECTION})*)")


# ---- from code to docs


def cited_sections() -> list[tuple[str, str]]:
    """(file, section) for every citation of docs/method.md in code, comments and recipes."""
    files = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.suffix in (".py", ".toml")]
    return [
        (str(path.relative_to(ROOT)), section)
        for path in sorted(files)
        for cited in CITATION.findall(path.read_text(encoding="utf-8"))
        for section in re.findall(SECTION, cited)
    ]


def test_every_cited_section_of_the_method_is_a_heading():
    text = (ROOT / "docs" / "method.md").read_text(encoding="utf-8")
    headings = set(re.findall(rf"(?m)^#{{2,4}} ({SECTION})", text))
    cited = cited_sections()
    assert len(cited) > 40, "the pattern no longer finds the citations"
    assert [(file, section) for file, section in cited if section not in headings] == []


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_citation_names_a_section(folder):
    """A mention of the page that the pattern above cannot read would escape it."""
    for path in (ROOT / folder).rglob("*"):
        if path.suffix in (".py", ".toml") and path != Path(__file__):
            text = path.read_text(encoding="utf-8")
            assert text.count("docs/method.md") == len(CITATION.findall(text)), path
            assert not re.search(r"\bMETHOD [A-F]\b", text), f"{path} cites a file that is not in the repository"


# ---- from docs to the program


class Code(NamedTuple):
    """blocks: (language, text) of fenced code. lines: shell lines, fenced or indented. spans: code inside sentences."""

    blocks: list[tuple[str, str]]
    lines: list[str]
    spans: list[str]


def code_of(text: str) -> Code:
    """The code of a Markdown page; a shell line and its continuations are one."""
    fence = re.compile(r"(?ms)^```(\w*)\n(.*?)^```$")
    blocks = [(match[1], match[2]) for match in fence.finditer(text)]
    prose = fence.sub("", text)
    indented = "\n".join(line for line in prose.splitlines() if line.startswith("    "))
    shell = "\n".join([indented, *(body for language, body in blocks if language in ("", "sh", "bash"))])
    lines = [line.strip() for line in shell.replace("\\\n", " ").splitlines()]
    spans = [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose)]
    return Code(blocks, lines, spans)


@cache
def verbs() -> dict[str, TyperCommand]:
    """Name → command; those of a group under both words, `prompts show`."""
    found = {}
    for name, command in typer.main.get_command(app).commands.items():
        inner = getattr(command, "commands", None)
        found |= {name: command} if inner is None else {f"{name} {word}": one for word, one in inner.items()}
    return found


def verb_of(words: list[str]) -> tuple[str, list[str]]:
    """(verb, the rest) of what follows `cleanctl`; the verb is the first word where there is no such verb."""
    known = verbs()
    count = 2 if " ".join(words[:2]) in known else 1
    return " ".join(words[:count]), words[count:]


def options(command: TyperCommand) -> set[str]:
    return {"-h", "--help"}.union(*(parameter.opts + parameter.secondary_opts for parameter in command.params))


def commands_in(line: str) -> list[list[str]]:
    """The words of each command of a shell line: `pip install nox && nox -s demo  # why` gives two."""
    line = re.sub(r"\$[A-Z_]{2,}", "1", line)  # a job's number
    words, commands = shlex.split(line, comments=True), [[]]
    for word in words:
        if word in ("&&", "||", "|", ";"):
            commands.append([])
        else:
            commands[-1].append(word)
    return [command for command in commands if command]


def complaint(words: list[str]) -> str:
    """What is wrong with a command of ours, or of a tool that the docs use on this repository; else nothing."""
    if words[0] == "cleanctl":
        return cleanctl_complaint(words[1 : words.index(">")] if ">" in words else words[1:])
    if words[:2] == ["nox", "-s"]:
        names = words[2:]
        names = names[: names.index("--")] if "--" in names else names
        return ", ".join(f"no session {name}" for name in names if name not in nox_sessions())
    if words[:2] == ["python", "-m"]:
        return "" if is_module(words[2]) else f"no module {words[2]}"
    if words[:2] == ["pip", "install"]:
        named = [name for word in words[2:] for part in re.findall(r"\[(.+)\]", word) for name in part.split(",")]
        return ", ".join(f"no extra {name}" for name in named if name not in extras())
    return ""


def is_module(name: str) -> bool:
    """Of ours, whether installed or only in the checkout, as bench is; or of an installed package."""
    path = ROOT.joinpath(*name.split("."))
    if path.with_suffix(".py").is_file() or (path / "__main__.py").is_file():
        return True
    return name.split(".")[0] not in FOLDERS and importlib.util.find_spec(name) is not None


def cleanctl_complaint(arguments: list[str]) -> str:
    verb, rest = verb_of(arguments)
    if verb in options(typer.main.get_command(app)):
        return ""
    if verb not in verbs():
        return f"no verb {verb}"
    try:
        verbs()[verb].make_context(verb, rest)  # parses as the command line does, and runs nothing
    except USAGE_ERROR as error:
        return error.format_message()
    except UsageError as error:
        return str(error)
    return ""


def span_complaint(span: str) -> str:
    """Code inside a sentence is often a part of a command, so only its names are looked at."""
    words = span.removeprefix("cleanctl ").split()
    known, verb = verbs(), verb_of(words)[0]
    if not words or (verb not in known and not words[0].startswith("--")):
        return f"no verb {words[0]}" if span.startswith("cleanctl ") and words else ""
    among = options(known[verb]) if verb in known else set().union(*map(options, known.values()))
    named = [re.split(r"[=|,]", word)[0] for word in words if word.startswith("--")]
    return ", ".join(f"no option {name} in `{span}`" for name in named if name not in among)


def nox_sessions() -> set[str]:
    tree = ast.parse((ROOT / "noxfile.py").read_text())
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.decorator_list}


def extras() -> set[str]:
    return set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])


@page
def test_commands_of_the_docs_can_be_typed(path):
    lines = [line for line in code_of(path.read_text()).lines if re.match(r"(cleanctl|nox|pip|python) ", line)]
    wrong = {line: what for line in lines for words in commands_in(line) if (what := complaint(words))}
    assert wrong == {}


@pytest.mark.parametrize("verb", verbs())
def test_examples_of_the_help_can_be_typed(verb):
    """From the docstrings: docs/help.md, which is made of them, has their lines broken at 80 columns."""
    shown = (inspect.getdoc(verbs()[verb].callback) or "").replace("\\\n", " ")
    examples = re.findall(r"(?m)^\s*(cleanctl .*?)(?:\s{2,}\(.*)?$", shown)
    assert examples, "every verb shows how it is used"
    assert {line: what for line in examples for words in commands_in(line) if (what := complaint(words))} == {}


@page
def test_options_named_in_sentences_exist(path):
    assert [what for span in code_of(path.read_text()).spans if (what := span_complaint(span))] == []


def is_missing_tool(module: str | None) -> bool:
    """Of the tools that users come from, those that are not installed here."""
    package = str(module).partition(".")[0]
    return package in ("cleanlab", "clip_retrieval") and importlib.util.find_spec(package) is None


@page
def test_python_of_the_docs_fits_the_library(path):
    """Imports resolve, and calls of what is imported have its arguments; of other tools where they are installed."""
    for language, body in code_of(path.read_text()).blocks:
        if language == "toml":
            tomllib.loads(body)
        if language != "python":
            continue
        tree, names = ast.parse(body), {}
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and is_missing_tool(node.module):
                continue
            if isinstance(node, ast.ImportFrom):
                module = importlib.import_module(node.module)
                names |= {alias.asname or alias.name: getattr(module, alias.name) for alias in node.names}
            elif isinstance(node, ast.Import):
                names |= {alias.asname or alias.name: importlib.import_module(alias.name) for alias in node.names}
        for call in ast.walk(tree):
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id in names:
                keywords = {keyword.arg: None for keyword in call.keywords}
                inspect.signature(names[call.func.id]).bind(*call.args, **keywords)


# ---- pages among each other


def targets_of(path: Path) -> list[str]:
    """Where the links and pictures of a page lead; other servers are left out."""
    text = re.sub(r"(?ms)^ *```.*?^ *```$|`[^`\n]*`", "", path.read_text())
    found = re.findall(r"\]\(([^)\s]+)\)", text)
    return [target for target in found if not re.match(r"[a-z]+:", target)]


@page
def test_links_and_pictures_lead_somewhere(path):
    def slugs(text: str) -> set[str]:
        titles = re.findall(r"(?m)^#+ (.+)$", text)
        return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}

    lost = []
    for target in targets_of(path):
        name, _, anchor = target.partition("#")
        file = path.parent / name if name else path
        if not file.exists() or (anchor and anchor not in slugs(file.read_text())):
            lost.append(target)
    assert lost == []


def test_every_page_is_in_the_navigation_and_the_other_way_round():
    nav = (ROOT / "mkdocs.yml").read_text().partition("\nnav:")[2]
    named = re.findall(r": (\S+\.md)$", nav, re.M)
    assert sorted(named) == sorted(str(path.relative_to(ROOT / "docs")) for path in DOCS)


def test_the_site_asks_no_other_server():
    """Fonts, scripts and pictures are its own; `nox -s docs` builds it."""
    assert re.search(r"(?m)^  font: false$", (ROOT / "mkdocs.yml").read_text())
    for path in DOCS:
        assert not re.search(r"!\[[^\]]*\]\(http|<script|<iframe|<img[^>]+http", path.read_text()), path


def test_pictures_are_small():
    sizes = {path.name: path.stat().st_size for path in (ROOT / "docs" / "pictures").iterdir()}
    assert {name: size for name, size in sizes.items() if size > 250_000} == {}
    assert sum(sizes.values()) < 1_500_000


def test_the_page_of_the_python_api_is_current():
    command = [sys.executable, "-m", "cleanctl.cli.api_pages"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert (ROOT / "docs" / "api.md").read_text() == done.stdout, "run: python -m cleanctl.cli.api_pages > docs/api.md"


def test_the_notebook_runs_from_its_first_cell_to_its_last(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CLEANCTL_STORE", raising=False)
    cells = [body for language, body in code_of((ROOT / "docs" / "howto" / "notebook.md").read_text()).blocks
             if language == "python"]  # fmt: skip
    assert len(cells) >= 5
    names: dict[str, object] = {}
    for cell in cells:
        exec(cell, names)  # the page's own code
    assert names["summary"].kept == int(names["kept"].sum())


def test_what_users_of_other_tools_are_shown_runs_and_does_the_same(tmp_path, monkeypatch):
    """Every block of the page in its order, with a folder as clip-retrieval leaves it."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    pytest.importorskip("cleanlab")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CLEANCTL_STORE", raising=False)
    for folder in ("out/img_emb", "out/metadata"):
        (tmp_path / folder).mkdir(parents=True)
    for part in range(12):  # the eleventh part sorts before the third as text
        class_B = (np.arange(10) + part) % 3
        np.save(f"out/img_emb/img_emb_{part}.npy", np.eye(3, 8, dtype=np.float16)[class_B])
        paths = [f"photos/c{number}/{part}-{at}.jpg" for at, number in enumerate(class_B)]
        pq.write_table(pa.table({"image_path": paths}), f"out/metadata/metadata_{part}.parquet")
    names: dict[str, object] = {}
    page = (ROOT / "docs" / "howto" / "from-other-tools.md").read_text()
    for language, body in code_of(page).blocks:
        if language == "python":
            exec(body, names)  # the page's own code
            continue
        for words in map(shlex.split, body.strip().splitlines()):
            done = CliRunner().invoke(app, words[1:])
            assert done.exit_code == 0, (words, done.output)
    theirs, ours = set(names["theirs"].tolist()), set(names["ours"].tolist())
    assert len(theirs & ours) > 0.9 * len(theirs | ours)
    joined = read_selection("joined.zarr").to_pylist()
    assert len(joined) == 120
    assert all(row["keep"] and row["key"].startswith(f"{row['label_name']}/") for row in joined)


def test_the_checks_find_what_they_look_for():
    code = code_of((ROOT / "README.md").read_text())
    assert sum(line.startswith("cleanctl ") for line in code.lines) > 12
    assert [language for language, _ in code.blocks] == ["python"]
    assert sum("--" in span for span in code.spans) > 10
    for line in (
        "cleanctl select --no-such-option",
        "cleanctl choose",
        "cleanctl select --theta-gmm much",
        "cleanctl embed a/ b/",
        "pip install '.[gpus]'",
        "pip install nox && nox -s demonstration",
        "python -m cleanctl.cli.helps",
    ):
        assert any(complaint(words) for words in commands_in(line)), line
    for span in ("--theta-gmms", "train --crossfit 5", "cleanctl choose"):
        assert span_complaint(span), span


def test_these_checks_load_nothing_heavy():
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); import tests.test_docs as t; t.complaint(['cleanctl', 'eval'])"
    )
    code += "; import cleanctl.api, cleanctl.config; print([m for m in ('torch', 'zarr', 'numpy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"
