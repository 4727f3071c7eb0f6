"""`lightning-gen list`: the recipes."""

import yaml

from lightning_gen.recipes import recipe_folder, recipe_names


def list_recipes() -> None:
    """Show the recipes with their model, data set, and what they reach."""
    rows = [("recipe", "model", "data", "reaches")]
    for name in recipe_names():
        text = (recipe_folder() / f"{name}.yaml").read_text(encoding="utf-8")
        recipe = yaml.safe_load(text)
        if "model" in recipe:  # configs/trainer holds second --config files, which are no experiments.
            model, data = (recipe[key]["class_path"].rpartition(".")[2] for key in ("model", "data"))
            rows.append((name, model, data.removesuffix("DataModule"), what_it_reaches(text)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())
    print("\nlightning-gen fit --config RECIPE trains one; --print_config shows all of it.")


def what_it_reaches(text: str) -> str:
    """The comment line `# reaches: ...` of a recipe."""
    lines = [line.removeprefix("# reaches: ") for line in text.splitlines() if line.startswith("# reaches: ")]
    return lines[0] if lines else ""
