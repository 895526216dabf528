"""The page in the browser: a record of what it shows, and one HTML file that needs nothing else."""

from cleanctl.report.page.record import PageData, Rule, Section, Verdict
from cleanctl.report.page.render import render

__all__ = ["PageData", "Rule", "Section", "Verdict", "render"]
