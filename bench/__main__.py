"""`python -m bench [SUITE …] [-- OPTIONS]`: runs suites one after another in processes of their own."""

from __future__ import annotations

import subprocess
import sys

SUITES = ("embed", "select", "train")
OTHERS = (
    "adapt",
    "adapt_shapes",
    "busy",
    "conflicts",
    "detector",
    "embed_whole",
    "gpu",
    "methods",
    "page",
    "plain_train",
    "quality",
    "ray",
)  # run by name alone


def main(arguments: list[str]) -> int:
    cut = arguments.index("--") if "--" in arguments else len(arguments)
    names, options = arguments[:cut] or list(SUITES), arguments[cut + 1 :]
    unknown = [name for name in names if name not in (*SUITES, *OTHERS)]
    if unknown:
        print(f"There is no suite {unknown[0]!r}; there are: {', '.join((*SUITES, *OTHERS))}.", file=sys.stderr)
        return 2
    for name in names:
        code = subprocess.run([sys.executable, "-m", f"bench.{name}", *options]).returncode
        if code:
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
