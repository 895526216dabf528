"""What the code cites exists in docs/, and what the docs tell readers to type exists in the program."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("cleanctl", "kernels", "bench", "tests")

# `docs/method.md A.5`, also with more sections behind it: `A.5, A.7`, `A and F`.
SECTION = r"[A-F](?:\.\d+)?\b"
CITATION = re.compile(rf"docs/method\.md\s+({SECTION}(?:(?:, | and ){SECTION})*)")


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
