"""The recipes: complete experiments in YAML files, named `<model>/<data set>` from anywhere."""

from pathlib import Path

from lightning_gen.errors import LightningGenError, did_you_mean


def recipe_folder() -> Path:
    """Where the recipes lie: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).parent
    installed = package / "configs"
    return installed if installed.is_dir() else package.parent / "configs"


def recipe_names() -> list[str]:
    """All names, such as `vae/digits`."""
    return sorted(map(recipe_name, recipe_folder().glob("*/*.yaml")))


def recipe_name(path: str | Path) -> str:
    """The name of a recipe's file, that of any other YAML file without its suffix."""
    path, folder = Path(path).resolve().with_suffix(""), recipe_folder().resolve()
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else path.name


def resolve_recipe(name_or_path: str) -> str:
    """The path of a recipe's file.

    Args:
        name_or_path: a recipe's name, the path of any YAML file (which comes first), or YAML text, kept as it is.

    Raises:
        LightningGenError: if it is none of them.
    """
    text = any(character in name_or_path for character in ":{\n")
    if text or Path(name_or_path).is_file():
        return name_or_path
    names = recipe_names()
    if name_or_path in names:
        return str(recipe_folder() / f"{name_or_path}.yaml")
    hint = did_you_mean(name_or_path, names) or "."
    raise LightningGenError(f"{name_or_path!r} is neither a file nor a recipe{hint} See lightning-gen list.")
