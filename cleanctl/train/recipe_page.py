"""The recipes of the package as Markdown, for docs/recipes.md: `python -m cleanctl.train.recipe_page` writes it there.

A test compares the committed page with what this makes, so that the page cannot fall behind the files.
"""

from __future__ import annotations

from pathlib import Path

from cleanctl.train.recipe import Recipe, load_recipe, names

BEGIN, END = "<!-- recipes: made by python -m cleanctl.train.recipe_page -->", "<!-- end of recipes -->"
COLUMNS = {
    "recipe": (),
    "network": ("network",),
    "px": ("image_size",),
    "batch": ("batch_size",),
    "epochs": ("epochs",),
    "steps": ("steps_per_epoch",),
    "optimiser": ("optimizer", "momentum"),
    "schedule": ("schedule", "milestones"),
    "lr": ("learning_rate",),
    "decay": ("weight_decay",),
    "sampler": ("sampler",),
    "β": ("mixup_beta",),
    "θ_r": ("theta_absorb",),
    "θ_r′": ("theta_relabel",),
    "θ_gmm": ("selection",),
    "θ_cons": ("selection",),
    "τ": ("selection",),
}


def recipe_tables() -> str:
    """A row a recipe; values with a star are inferred, and listed below with the reason."""
    recipes = [load_recipe(name) for name in names()]
    lines = ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    lines += ["| " + " | ".join(_cells(recipe)) + " |" for recipe in recipes]
    lines += ["", "A star marks a value that is not published for that setting:", ""]
    for recipe in recipes:
        for why in dict.fromkeys(recipe.inferred.values()):
            keys = [f"`{key}`" for key, reason in recipe.inferred.items() if reason == why]
            lines.append(f"- `{recipe.name}`: {', '.join(keys)} – {why}.")
    lines += ["", "Sources:", ""]
    lines += [f"- `{recipe.name}`: {recipe.source}." for recipe in recipes]
    return "\n".join(lines)


def _cells(recipe: Recipe) -> list[str]:
    thresholds = ["–"] * 3
    if (chosen := recipe.selection) is not None:
        thresholds = [f"{number:g}" for number in (chosen.theta_gmm, chosen.theta_consistency, chosen.temperature)]
    steps = f"{recipe.steps_per_epoch:,}" if recipe.steps_per_epoch else "N / batch"
    adam = f"adamw {recipe.betas[0]:g}, {recipe.betas[1]:g}"
    sgd = f"sgd {recipe.momentum:g}" + (", nesterov" if recipe.nesterov else "")
    schedule = {
        "multistep": f"÷{1 / recipe.gamma:g} at {', '.join(map(str, recipe.milestones))}",
        "cosine": "cosine",
        "onecycle": f"one cycle, {recipe.warmup:g} up",
    }[recipe.schedule]
    if recipe.schedule == "multistep" and not recipe.milestones:
        schedule = "constant"
    values = [
        f"`{recipe.name}`",
        recipe.network,
        *(f"{size}" for size in (recipe.image_size, recipe.batch_size, recipe.epochs)),
        *(steps, sgd if recipe.optimizer == "sgd" else adam, schedule),
        *(f"{number:g}" for number in (recipe.learning_rate, recipe.weight_decay)),
        recipe.sampler,
        *(f"{number:g}" for number in (recipe.mixup_beta, recipe.theta_absorb, recipe.theta_relabel)),
        *thresholds,
    ]
    return [
        value + ("\\*" if any(field in recipe.inferred for field in fields) else "")
        for value, fields in zip(values, COLUMNS.values(), strict=True)
    ]


def with_tables(page: str) -> str:
    """The page with what lies between the two marks made anew."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{recipe_tables()}\n\n{END}{after}"


if __name__ == "__main__":
    path = Path("docs/recipes.md")
    path.write_text(with_tables(path.read_text("utf-8")), "utf-8")
