"""Four processes embed one folder into one store, some kill themselves; prints what each round of them ended with.

Arguments: source, model folder, loader, a store for one uninterrupted process, a store for the four, and rounds parted
by `;` of four events parted by `,` (see embed_child; `-` takes no part). After each round `--finish` is tried.
"""

from __future__ import annotations

import sys

from embed_child import attempt, start, wait

if __name__ == "__main__":
    source, model, loader, whole, shared, rounds = sys.argv[1:]
    if attempt((source, model, whole, loader), "none"):
        sys.exit(1)
    arguments = (source, model, shared, loader)
    for events in rounds.split(";"):
        parts = {number: event for number, event in enumerate(events.split(",")) if event != "-"}
        children = [start(arguments, event, shard=f"{number}/4") for number, event in parts.items()]
        codes = [wait(child) for child in children]
        sys.stdout.write(" ".join(map(str, [*codes, attempt(arguments, "none", finish=True)])) + "\n")
        sys.stdout.flush()
