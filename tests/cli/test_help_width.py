"""The help at any width: whole names, whole sentences, lines that fit; commands that can be copied."""

from __future__ import annotations

import re

import pytest
import typer.main

from cleanctl.cli import app
from cleanctl.cli.help import help_of

ROOT = typer.main.get_command(app)


def commands(group=ROOT, above="cleanctl"):
    yield above, group
    for name, one in getattr(group, "commands", {}).items():
        yield from commands(one, f"{above} {name}")


ALL = dict(commands())


def helped(name: str, width: int) -> str:
    command = ALL[name]
    return help_of(command, type(ROOT).context_class(command, info_name=name), width=width, bold=False)


@pytest.mark.parametrize("width", [40, 80, 200])
@pytest.mark.parametrize("name", ALL)
def test_help_fits_its_width_and_cuts_nothing_off(name, width):
    text = helped(name, width)
    flowing = " ".join(text.split())
    for one in ALL[name].params:
        assert all(re.search(rf"(?m)^  .*{re.escape(flag)}\b", text) for flag in one.opts if flag.startswith("--"))
        assert " ".join((one.help or "").split()) in flowing
    long = [line for line in text.splitlines() if len(line) > width]
    assert all(line.startswith(("  cleanctl", "    ")) for line in long), "only a command may be longer"


def test_a_flag_takes_no_value_and_a_value_has_a_name():
    text = helped("cleanctl train", 80)
    assert re.search(r"(?m)^  --tensorboard  +Write", text)
    assert re.search(r"(?m)^  --epochs N  +Passes", text)
    assert re.search(r"(?m)^  -q, --quiet  +Print", text)
    assert "[default: --resume]" in " ".join(text.split())
    assert "[default: 0]" in " ".join(helped("cleanctl review serve", 80).split())


@pytest.mark.parametrize("width", [40, 80])
def test_the_commands_in_help_can_be_copied(width):
    """On several lines each but the last ends in a backslash."""
    text = helped("cleanctl prompts write", width)
    joined = text.replace("\\\n", "")
    assert "cleanctl prompts write p.toml --classes c.txt --answers answer.json" in re.sub(" +", " ", joined)


def test_the_overview_tells_each_verb_in_a_whole_sentence():
    flowing = " ".join(helped("cleanctl", 60).split())
    for name, command in ROOT.commands.items():
        first = " ".join(command.help.partition("\n\n")[0].split())
        assert f"{name} {first.partition('. ')[0].rstrip('.')}." in flowing
