"""The command line as a person meets it: output, exit codes, files; every error in three parts; nothing lost."""

from __future__ import annotations
