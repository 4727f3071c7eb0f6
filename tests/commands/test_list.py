import pytest

from lightning_gen.cli import main
from lightning_gen.commands.list import what_it_reaches
from lightning_gen.recipes import recipe_folder, recipe_names

EXPERIMENTS = [name for name in recipe_names() if not name.startswith("trainer/")]


def test_list_shows_every_experiment_with_model_and_data(capsys):
    main(["list"])
    rows = {line.split()[0]: line.split() for line in capsys.readouterr().out.splitlines() if "/" in line}
    assert sorted(rows) == EXPERIMENTS
    assert rows["vae/digits"][1:3] == ["VAE", "Digits"]


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_recipe_says_what_it_reaches(name):
    assert what_it_reaches((recipe_folder() / f"{name}.yaml").read_text())
