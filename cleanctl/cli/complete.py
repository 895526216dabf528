"""What a shell offers after an option: names of this store, of the registries, of the package's files.

`offers(option)` is the function that typer calls for one option; which names it gives follows from the option's
declaration (a Literal, a registry) or from its flag. A Tab is pressed often, so nothing heavy is loaded: a store is
read as the JSON files that it consists of, and one that is not there or damaged offers nothing.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_args, get_origin

import typer

from cleanctl.config.option import Option, members
from cleanctl.errors import CleanctlError
from cleanctl.paths import detectors_dir, runs_dir, store_path
from cleanctl.registry import SCORERS

PACKAGE = Path(__file__).resolve().parent.parent
ENDS_A_RULE = re.compile(r"[&|~()\s]")
BASH_MEANS = re.compile(r"([^\w@%+=:,./~-])")  # what bash would not take as a part of a word

Offers = Callable[[Path], Iterable[str]]


# ---- names of a store


def splits(store: Path) -> list[str]:
    """As Store.split_names, of a store that nothing is wrong with."""
    return sorted(path.parent.name for path in store.glob("[!.]*/zarr.json") if path.parent.name != "text")


def selections(store: Path) -> list[str]:
    """Of all splits, the newest first."""
    found = [_attributes(path) for path in store.glob("[!.]*/selections/[!.]*/zarr.json")]
    found.sort(key=lambda one: -int(one.get("sequence", 0)))
    return list(dict.fromkeys(str(one["name"]) for one in found if "name" in one))


def rules(store: Path) -> list[str]:
    """Rules that the store's selections used."""
    found = [_attributes(path) for path in store.glob("[!.]*/selections/[!.]*/zarr.json")]
    named = [rule["rule"] for one in found for rule in one.get("summary", {}).get("rules", ())]
    return list(dict.fromkeys(named))


def classes(store: Path) -> list[str]:
    return list(map(str, _attributes(store / "zarr.json").get("cleanctl", {}).get("classes", ())))


def came_as_arrays(store: Path) -> bool:
    """Whether the store has no images that anything could be trained on; False where there is no store."""
    return _attributes(store / "zarr.json").get("cleanctl", {}).get("source", True) == {}


def runs(store: Path) -> list[str]:
    """Training runs, the newest first."""
    return _folders(runs_dir(store), "config.json")


def detectors(store: Path) -> list[str]:
    return _folders(detectors_dir(store), "config.json")


def _folders(root: Path, mark: str) -> list[str]:
    found = sorted(root.glob(f"[!.]*/{mark}"), key=lambda path: -path.stat().st_mtime_ns)
    return [path.parent.name for path in found]


def _attributes(path: Path) -> dict[str, Any]:
    """Of a group of Zarr; empty for a file that is not there or not whole."""
    try:
        values = json.loads(path.read_bytes())["attributes"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return values if isinstance(values, dict) else {}


# ---- names of the package


def models(store: Path) -> list[str]:
    """Of open_clip, by its files; the package is not imported."""
    found = find_spec("open_clip")
    places = found.submodule_search_locations if found else None
    return sorted(path.stem for place in places or () for path in Path(place).glob("model_configs/*.json"))


def prompt_sets(store: Path) -> list[str]:
    return ["features", *_stems("prompts/sets/*.toml")]


def adapt_presets(store: Path) -> list[str]:
    return _stems("adapt/presets/*.toml")


def _stems(pattern: str) -> list[str]:
    return sorted(path.stem for path in PACKAGE.glob(pattern))


def recipes(store: Path) -> list[str]:
    from cleanctl.config.recipe_files import recipe_names

    return list(recipe_names())


def tables(store: Path) -> list[str]:
    from cleanctl.config.reproduce import TABLES

    return list(TABLES)


def noise_kinds(store: Path) -> list[str]:
    from cleanctl.config.noise import NOISE_KINDS

    return [f"{kind}:" for kind in NOISE_KINDS]


def tunings(store: Path) -> list[str]:
    from cleanctl.config.adapt import ON_EMBEDDINGS
    from cleanctl.config.tune import spelled

    return [*ON_EMBEDDINGS, *spelled()]


def strategy_words(store: Path) -> list[str]:
    """Ready strategies, rules, and scorers with the dot behind which a mechanism goes."""
    from cleanctl.strategy import JOINT_RULE, PAPER_RULES

    ready = ["intersection", "union", "vote:2", "vote:3", JOINT_RULE.scorer]
    known = [*(rule.name for rule in PAPER_RULES), JOINT_RULE.name, *rules(store)]
    return list(dict.fromkeys([*ready, *known, *(f"{name}." for name in SCORERS.built_in)]))


# ---- which option takes which

BY_FLAG: dict[str, Offers] = {
    "--selection": lambda store: [*selections(store), "all"],
    "A": selections,
    "B": selections,
    "--against": selections,
    "--split": splits,
    "--run": lambda store: [*runs(store), "all"],
    "--apply": detectors,
    "--class": classes,
    "--rule": lambda store: [f"{rule}={word}" for rule in rules(store) for word in ("kept", "dropped")],
    "--strategy": strategy_words,
    "--model": models,
    "--network": lambda store: ["clip", "preact-resnet18", "fastconv", "vgg19-bn", "resnet50"],
    "--prompts": prompt_sets,
    "SET": prompt_sets,
    "--recipe": recipes,
    "--preset": recipes,
    "--tune": tunings,
    "--noise": noise_kinds,
    "TABLE": tables,
}
OF_VERB: dict[tuple[str, str], Offers] = {
    ("adapt", "--preset"): adapt_presets,
    ("conflicts", "--against"): splits,
}


def offers(one: Option) -> Callable[..., list[str]] | None:
    """typer's callback for an option; None where the shell's own (files) is all there is to offer."""
    named = BY_FLAG.get(one.flag)
    if one.known is None and named is None and not _words(one):
        return None

    def complete(ctx: typer.Context, incomplete: str) -> list[str]:
        by_verb = OF_VERB.get((str(ctx.info_name), one.flag), named)
        words = [] if one.known is None else list(one.known.names())  # asked here: `--help` reads no entry points
        try:
            found = words or _words(one) or list(by_verb(store_path(ctx.params.get("store"))) if by_verb else ())
        except (CleanctlError, OSError):  # a place where no store can lie: nothing is known
            found = []
        return _shown(_behind_rules(found, incomplete) if one.flag == "--strategy" else found, incomplete)

    return complete


def store_offers(incomplete: str) -> list[str]:
    """Stores in the folder that is being typed, and in the folders below it; none, and the shell offers files."""
    above = incomplete.rpartition("/")[0] + "/" if "/" in incomplete else ""
    root = Path(above or ".").expanduser()
    found = [path.parent for depth in ("*", "*/*") for path in sorted(root.glob(f"{depth}/zarr.json"))]
    stores = [place for place in found if "cleanctl" in _attributes(place / "zarr.json")]
    roots = [one for one in stores if not (one.parent / "zarr.json").exists()]  # a split is no store
    return _shown([above + str(one.relative_to(root)) for one in roots], incomplete)


def _words(one: Option) -> list[str]:
    """Of its Literals."""
    return [word for kind in members(one.hint) if get_origin(kind) is not None for word in get_args(kind)
            if isinstance(word, str)]  # fmt: skip


def _behind_rules(found: Iterable[str], incomplete: str) -> list[str]:
    """The last rule of an expression is being typed; what stands before it stays."""
    ends = [match.end() for match in ENDS_A_RULE.finditer(incomplete)]
    before = incomplete[: ends[-1]] if ends else ""
    return [before + name for name in found]


def _shown(found: Iterable[str], incomplete: str) -> list[str]:
    """Those that begin so; for bash, which puts them in as they are, with what it would obey escaped."""
    chosen = [name for name in found if name.startswith(incomplete)]
    if os.environ.get("_CLEANCTL_COMPLETE") == "complete_bash":
        return [BASH_MEANS.sub(r"\\\1", name) for name in chosen]
    return chosen
