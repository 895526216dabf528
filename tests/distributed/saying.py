"""Progress of a child process: notes and warnings as lines on stdout, which a test reads."""

from __future__ import annotations

import sys

from cleanctl.progress import SILENT


class Saying:
    track = SILENT.track

    def note(self, text: str) -> None:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()

    warn = note
