"""What errors and doctor tell a person to type for an extra works from where this copy of cleanctl came from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cleanctl.errors import first_line, install_command

ROOT = Path(__file__).resolve().parent.parent
WORD = "pip install 'cleanctl[gpu] @ URL'   (URL: that of the file or repository that cleanctl came from)"
HTTPS = "https://example.org/cleanctl"


@pytest.fixture
def installed(tmp_path):
    """The package's folder in a site-packages whose dist-info holds a record of PEP 610, if one is given."""

    def install(record):
        info = tmp_path / "site" / "cleanctl-0.1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text("Metadata-Version: 2.4\nName: cleanctl\nVersion: 0.1.0\n")
        if record is not None:
            (info / "direct_url.json").write_text(json.dumps(record))
        return tmp_path / "site" / "cleanctl"

    return install


def test_a_checkout_names_its_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    assert install_command("gpu") == "pip install -e '.[gpu]'"
    monkeypatch.chdir(tmp_path)
    assert install_command("gpu") == f"pip install -e '{ROOT}[gpu]'"


@pytest.mark.parametrize(
    ("record", "requirement"),
    [
        ({"url": f"{HTTPS}.whl", "archive_info": {}}, f"{HTTPS}.whl"),
        ({"url": f"{HTTPS}.zip", "archive_info": {}, "subdirectory": "a"}, f"{HTTPS}.zip#subdirectory=a"),
        ({"url": f"{HTTPS}.git", "vcs_info": {"vcs": "git", "commit_id": "c0"}}, f"git+{HTTPS}.git@c0"),
        (
            {"url": f"{HTTPS}.git", "vcs_info": {"vcs": "git", "commit_id": "c0", "requested_revision": "v1"}},
            f"git+{HTTPS}.git@v1",
        ),
    ],
)
def test_a_wheel_or_a_repository_names_its_url(installed, record, requirement):
    assert install_command("gpu", package=installed(record)) == f"pip install 'cleanctl[gpu] @ {requirement}'"


def test_a_folder_that_was_installed_from_is_named_while_it_is_there(installed, tmp_path, monkeypatch):
    folder = tmp_path / "my checkout"
    folder.mkdir()
    package = installed({"url": folder.as_uri(), "dir_info": {}})
    assert install_command("gpu", package=package) == f"pip install '{folder}[gpu]'"
    monkeypatch.chdir(folder)
    assert install_command("gpu", package=package) == "pip install '.[gpu]'"
    folder.rmdir()
    assert install_command("gpu", package=package) == WORD


@pytest.mark.parametrize("record", [None, {"url": "file:///gone/cleanctl.whl", "archive_info": {}}])
def test_where_nobody_knows_the_place_a_word_stands_for_it(installed, record):
    assert install_command("gpu", package=installed(record)) == WORD


def test_nothing_tells_a_reader_to_install_pypis_cleanctl():
    named = [
        str(path.relative_to(ROOT))
        for path in (*ROOT.glob("cleanctl/**/*.py"), *ROOT.glob("docs/*.md"), ROOT / "README.md")
        if "cleanctl[" in path.read_text()
    ]
    assert named == ["cleanctl/errors.py"]


def test_another_librarys_error_is_told_in_a_line_even_if_it_says_nothing():
    assert first_line(RuntimeError("\n out of memory \n\nsee the log\nand more")) == "out of memory"
    assert first_line(RuntimeError("")) == "RuntimeError"
    assert len(first_line(ValueError("x" * 1_000))) == 300
