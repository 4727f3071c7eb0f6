import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from lightning_gen.cli import FUNCTIONS, TRAINER, main
from lightning_gen.recipes import recipe_folder, recipe_names, resolve_recipe


def one_line_error(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    """Run a command that must fail with a non-zero exit and one line on stderr."""
    with pytest.raises(SystemExit) as exit_:
        main(list(args))
    assert isinstance(exit_.value.code, int)
    assert exit_.value.code != 0
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("lightning-gen:")]
    assert len(lines) == 1
    return lines[0]


def fresh_python(*args: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """A new interpreter, which finds this checkout's package from any folder."""
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parents[1])!r}); {args[0]}"
    return subprocess.run([sys.executable, "-c", code, *args[1:]], cwd=cwd, capture_output=True, text=True, check=True)


def test_help_names_every_command(capsys):
    main(["--help"])
    text = capsys.readouterr().out
    assert all(f"\n  {name} " in text for name in [*TRAINER, *FUNCTIONS])
    main([])
    assert capsys.readouterr().out == text


@pytest.mark.parametrize("command", ["--help", "list"])
def test_light_commands_import_neither_torch_nor_lightning(command, tmp_path):
    start = time.monotonic()
    code = (
        "from lightning_gen.cli import main; main(sys.argv[1:]); "
        "heavy = {'torch', 'pytorch_lightning', 'lightning'} & set(sys.modules); sys.exit(bool(heavy))"
    )
    fresh_python(code, command, cwd=tmp_path)
    assert time.monotonic() - start < 5  # 0.1 and 0.25 s on a quiet machine; the imports would take more.


def test_unknown_command_suggests_the_nearest(capsys):
    assert "did you mean list?" in one_line_error(capsys, "lst")


def test_unknown_recipe_suggests_the_nearest(capsys):
    error = one_line_error(capsys, "fit", "--config", "vea/digits")
    assert "'vea/digits'" in error
    assert "did you mean vae/digits?" in error
    assert "lightning-gen list" in error


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        (["--trainer.max_epoch", "3"], "did you mean --trainer.max_epochs?"),  # An abbreviation is a misspelling.
        (["--modl.latent_dim", "3"], "did you mean --model.latent_dim?"),
        (["--model", "VAE", "--model.latnt_dim", "3"], "did you mean latent_dim?"),
        (["--checkpoint.savelast", "true"], "did you mean --checkpoint.save_last?"),
    ],
)
def test_misspelt_option_suggests_the_nearest(typed, meant, capsys):
    assert meant in one_line_error(capsys, "fit", *typed)


def test_without_a_recipe_one_is_named(capsys):
    assert "give a recipe, --config vae/digits" in one_line_error(capsys, "fit")


def test_wrong_value_names_option_and_type(capsys):
    error = one_line_error(capsys, "fit", "--model", "VAE", "--model.latent_dim", "many")
    assert "latent_dim" in error or "model" in error
    assert "int" in error
    assert "many" in error


def test_traceback_on_request(monkeypatch):
    from lightning_gen.errors import LightningGenError

    monkeypatch.setenv("LIGHTNING_GEN_TRACEBACK", "1")
    with pytest.raises(LightningGenError):
        main(["lst"])


@pytest.mark.parametrize("buffering", ["", "1"])
@pytest.mark.parametrize("command", ["list", "list --help"])
def test_nothing_is_said_when_nobody_reads(command, buffering, tmp_path):
    """As in `lightning-gen list | head`, whether it is noticed while printing or at the end."""
    reader, writer = os.pipe()
    os.close(reader)
    run = subprocess.run(
        [sys.executable, str(Path(__file__).parents[1] / "cli.py"), *command.split()],
        cwd=tmp_path,
        stdout=writer,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONUNBUFFERED": buffering},
    )
    os.close(writer)
    assert run.stderr == b""
    assert run.returncode in ((141,) if command == "list" else (141, 0))  # argparse itself is quiet about it.


def test_other_pipes_that_break_are_said(monkeypatch, capsys):
    def break_(*_: object) -> None:
        raise BrokenPipeError("between two processes")

    monkeypatch.setattr("lightning_gen.commands.list.recipe_names", break_)
    assert "between two processes" in one_line_error(capsys, "list")


def test_interrupt_before_training_is_one_line(monkeypatch, capsys):
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("lightning_gen.commands.list.recipe_names", interrupt)
    with pytest.raises(SystemExit) as exit_:
        main(["list"])
    assert exit_.value.code == 130
    assert capsys.readouterr().err == "lightning-gen: interrupted\n"


@pytest.mark.parametrize("name", [name for name in recipe_names() if name.startswith("trainer/")])
def test_a_recipe_is_read_with_what_it_trains_on(name, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["fit", "--config", "vae/digits", "--config", name, "--print_config"])
    assert not stopped.value.code, capsys.readouterr().err
    read = yaml.safe_load(capsys.readouterr().out)["trainer"]
    given = yaml.safe_load(Path(resolve_recipe(name)).read_text(encoding="utf-8"))["trainer"]
    assert all(read[key] == value for key, value in given.items() if key != "strategy")


@pytest.mark.parametrize("name", [name for name in recipe_names() if not name.startswith("trainer/")])
def test_print_config_of_every_recipe_runs_unchanged(name, tmp_path, capsys):
    """Every default can be written to YAML and read back; a lambda holding a tuple, for one, could not."""

    def print_config(recipe: str) -> str:
        with pytest.raises(SystemExit) as exit_:
            main(["fit", "--config", recipe, "--print_config"])
        assert exit_.value.code == 0
        return capsys.readouterr().out

    text = print_config(name)
    path = tmp_path / "printed.yaml"
    path.write_text(text)
    assert print_config(str(path)) == text
    assert yaml.safe_load(text)["checkpoint"]["save_last"] is True


def test_recipes_are_found_by_name_path_and_text(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    printed = []
    for config in ("vae/digits", str(recipe_folder() / "vae" / "digits.yaml")):
        with pytest.raises(SystemExit):
            main(["fit", "--config", config, "--config", "{trainer: {max_epochs: 3}}", "--print_config"])
        printed.append(yaml.safe_load(capsys.readouterr().out))
    assert printed[0] == printed[1]
    assert printed[0]["trainer"]["max_epochs"] == 3
    assert printed[0]["model"]["class_path"].endswith("VAE")
