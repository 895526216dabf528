"""Long commands on several lines, so that they can still be copied."""

from __future__ import annotations


def fold(line: str, *, width: int) -> list[str]:
    """A command in pieces of at most `width` letters where its words allow, each but the last ending in a backslash.

    It breaks before options only, so that an option stays with its value.
    """
    groups: list[str] = []
    for word in line.split(" "):
        if groups and not word.startswith("--"):
            groups[-1] += " " + word
        else:
            groups.append(word)
    lines = [groups[0]]
    for group in groups[1:]:
        if len(lines[-1]) + len(group) + 3 > width:
            lines.append(group)
        else:
            lines[-1] += " " + group
    return [f"{text} \\" for text in lines[:-1]] + lines[-1:]
