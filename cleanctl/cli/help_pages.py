"""The help of every verb as one Markdown page: `python -m cleanctl.cli.help_pages > docs/help.md`.

A test compares the committed page with what this makes, so that the page cannot fall behind.
"""

from __future__ import annotations

WIDTH = 80


def help_page() -> str:
    """Markdown: each verb's `--help`, as an 80-column terminal shows it without colours."""
    import os

    import typer.main
    from typer.testing import CliRunner

    from cleanctl.cli import app

    os.environ.update(COLUMNS=str(WIDTH), TERMINAL_WIDTH=str(WIDTH), NO_COLOR="1", TERM="dumb")
    runner = CliRunner()
    verbs = []
    for name, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        verbs += [[name], *([name, word] for word in getattr(command, "commands", ()))]
    parts = ["# The command line", "", "Made by `python -m cleanctl.cli.help_pages > docs/help.md`; do not edit."]
    for arguments in ([], *verbs):
        text = runner.invoke(app, [*arguments, "--help"], prog_name="cleanctl").output
        lines = "\n".join(line.rstrip() for line in text.strip("\n").splitlines())
        parts += ["", f"## cleanctl {' '.join(arguments)}".rstrip(), "", "```text", lines, "```"]
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    import sys

    sys.stdout.write(help_page())
