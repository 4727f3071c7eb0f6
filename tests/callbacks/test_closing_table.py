import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import rich

from lightning_gen._lightning import pl
from lightning_gen.callbacks import ClosingTable, Figure, SampleEvaluation, SampleGrid
from lightning_gen.callbacks.closing_table import figure_table
from lightning_gen.cli import main
from lightning_gen.datamodules import DigitsDataModule
from lightning_gen.models import GAN, GenerativeModule
from tests.callbacks.runs import MeanPixel, fit, small_gan
from tests.digits import quiet_trainer
from tests.tiny import TINY, tiny


def run(folder: Path, epochs: int = 2, **arguments: Any) -> Any:
    callbacks = [
        ClosingTable(),
        evaluation := SampleEvaluation([MeanPixel()], num_samples=20),
        SampleGrid(4),
        pl.callbacks.ModelCheckpoint(folder / "checkpoints", save_last=True),
        *arguments.pop("callbacks", []),
    ]
    trainer = fit(callbacks, epochs=epochs, default_root_dir=folder, enable_checkpointing=True, **arguments)
    return trainer, evaluation


def test_figures_protocols_pictures_and_the_next_commands(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rich.get_console(), "width", 160)
    monkeypatch.chdir(tmp_path)
    trainer, evaluation = run(tmp_path)
    output = capsys.readouterr().out.splitlines()
    protocols = {line.partition(" ")[0]: line.partition(" ")[2] for line in output if line.startswith("(")}
    assert sum("(epoch 0)" in line for line in output) == 1, "in the header alone"
    lines = [[cell.strip() for cell in line.split("│")[1:-1]] for line in output]
    table = {cells[0]: [*cells[1:-1], protocols[cells[-1]]] for cells in lines if cells}
    first, last = evaluation.figures
    expected = [f"{last.value:.4g}", f"{first.value:.4g}", f"{last.real:.4g}", "20 samples, 200 val images"]
    assert table["val/mean_pixel ↑"] == expected
    logged = {name: value.item() for name, value in trainer.callback_metrics.items()}
    value, before, real, protocol = table["val/nll ↓"]
    assert value == f"{logged['val/nll']:.4g} ± {logged['val/nll_stderr']:.2g}"
    assert float(before) > logged["val/nll"], "training does not show"
    assert (real, protocol) == ("", "nats, evidence lower bound, 1 sample")
    bits, error = (float(text) for text in table["val/bits_per_dim ↓"][0].split(" ± "))
    assert bits == pytest.approx(logged["val/bits_per_dim"], rel=1e-3)
    assert error / bits == pytest.approx(logged["val/nll_stderr"] / logged["val/nll"], rel=0.05)

    trainer.test(trainer.lightning_module, datamodule=trainer.datamodule, verbose=False)
    tested = capsys.readouterr().out
    assert "test/nll" in tested
    assert "val/nll" not in tested
    assert "first" not in tested
    assert len(tested.split("test/nll ↓")) == 2
    content = json.loads((tmp_path / "figures.json").read_text())
    assert set(content) == {"fit", "test"}
    assert [f["epoch"] for f in content["fit"]["figures"] if f["name"] == "val/mean_pixel"] == [0, 1]
    assert content["fit"]["pictures"] == [str(tmp_path / "samples" / f"epoch=000{n}.png") for n in (0, 1)]
    assert all((tmp_path / path).exists() for path in [content["fit"]["checkpoint"]])


def test_paths_and_commands_stay_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rich.get_console(), "width", 60)
    folder = tmp_path / "a [long] name"
    folder.mkdir()
    run(folder, epochs=1)
    lines = capsys.readouterr().out.splitlines()
    last = folder / "checkpoints" / "last.ckpt"
    assert f"Figures     {folder / 'figures.json'}" in lines
    assert f"Pictures    {folder / 'samples' / 'epoch=0000.png'}" in lines
    assert f"Checkpoint  {last}" in lines
    assert f"            lightning-gen sample --ckpt_path '{last}' --num_samples 64 --output grid.png" in lines
    assert f"Next        lightning-gen test --ckpt_path '{last}'" in lines


def test_a_resumed_run_shows_its_first_epoch(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    trainer, _ = run(tmp_path / "one", epochs=1)
    first = trainer.callback_metrics["val/nll"].item()
    trainer, _ = run(tmp_path, epochs=2, ckpt_path=tmp_path / "one" / "checkpoints" / "last.ckpt")
    figures = json.loads((tmp_path / "figures.json").read_text())["fit"]["figures"]
    assert [f["epoch"] for f in figures if f["name"] == "val/nll"] == [0, 1]
    assert next(f["value"] for f in figures if f["name"] == "val/nll") == first


def test_a_model_without_figures_still_says_where_its_checkpoint_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save = pl.callbacks.ModelCheckpoint(tmp_path, save_last=True)
    fit([ClosingTable(), save], small_gan, epochs=1, default_root_dir=tmp_path, enable_checkpointing=True)
    assert f"Checkpoint  {tmp_path / 'last.ckpt'}" in capsys.readouterr().out
    assert not (tmp_path / "figures.json").exists()


@pytest.mark.parametrize("name", TINY)
def test_the_next_command_runs_as_it_is_printed(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, data = tiny(name)
    if not isinstance(model, GenerativeModule):
        pytest.skip("cannot be sampled")
    monkeypatch.chdir(tmp_path)
    save = pl.callbacks.ModelCheckpoint("runs", save_last=True)
    limits = {"limit_train_batches": 1, "limit_val_batches": 1, "num_sanity_val_steps": 0}
    callbacks = [ClosingTable(), save]
    trainer = quiet_trainer(max_epochs=1, callbacks=callbacks, enable_checkpointing=True, **limits)
    trainer.fit(model, datamodule=data)
    lines = capsys.readouterr().out.splitlines()
    test, *samples = (line.removeprefix("Next").strip() for line in lines if "lightning-gen " in line)
    assert test == "lightning-gen test --ckpt_path runs/last.ckpt"
    assert len(samples) == model.can_sample  # One that trains in phases has nothing to show yet.
    if not samples:
        return
    kind, *options = shlex.split(samples[0])[1:]
    assert kind == "sample"
    main([kind, *options, "--device", "cpu"])
    assert Path(options[-1]).stat().st_size


def test_figures_stay_whole_in_80_columns(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Names are folded first."""
    monkeypatch.setattr(rich.get_console(), "width", 80)
    name = "test/inception_score_efficientnet_lite0/dataloader_idx_1"
    histories = {
        name: [Figure(name, 1234.5678 + n, 123.4, -1234.5678, "p", "test", n, True) for n in (0, 9)],
        "short": [Figure("short", 1.0, None, None, "q", "test", 9)],
    }
    rich.get_console().print(figure_table(histories, {"p": "(11)", "q": "(12)"}, ("v", "^")))
    output = capsys.readouterr().out
    assert max(map(len, output.splitlines())) <= 80
    for cell in ("1244 ± 1.2e+02", "1235", "-1235", "(11)", "(12)", "real", "images", "(epoch 0)"):
        assert f" {cell} " in output
    assert "…" not in output


def test_a_test_shows_what_else_a_model_logs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Own(GAN):
        def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
            self.log("test/mine", 0.25)

    trainer = quiet_trainer(callbacks=[ClosingTable()], limit_test_batches=1, default_root_dir=tmp_path)
    trainer.test(Own(hidden_size=4), DigitsDataModule(), verbose=False)
    output = capsys.readouterr().out
    assert "test/mine" in output
    assert "0.25" in output
    assert "(1) as Own logs it" in output


def test_after_a_test_the_test_is_not_proposed_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    trainer, _ = run(tmp_path, epochs=1)
    trainer.validate(trainer.lightning_module, datamodule=trainer.datamodule, verbose=False)
    capsys.readouterr()
    last = Path("checkpoints", "last.ckpt")
    trainer.test(trainer.lightning_module, datamodule=trainer.datamodule, ckpt_path=last, verbose=False)
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "lightning-gen " in line]
    assert line == f"Next        lightning-gen sample --ckpt_path {last} --num_samples 64 --output grid.png"


def test_bars_and_table_share_a_terminal(tmp_path: Path) -> None:
    """Lightning's live display, our bars in it and the table under a real pseudo-terminal."""
    pty = pytest.importorskip("pty")
    parent, child = pty.openpty()
    code = (
        "from pathlib import Path; from lightning_gen._lightning import pl;"
        "from tests.callbacks.test_closing_table import run;"
        "bar = pl.callbacks.RichProgressBar(refresh_rate=30);"
        f"run(Path({str(tmp_path)!r}), enable_progress_bar=True, callbacks=[bar])"
    )
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "120"}
    process = subprocess.Popen([sys.executable, "-c", code], stdout=child, stderr=child, env=environment)
    os.close(child)
    output = b""
    while True:
        try:
            chunk = os.read(parent, 65536)
        except OSError:  # Linux's end of a pseudo-terminal.
            break
        if not chunk:
            break
        output += chunk
    text = output.decode()
    assert process.wait() == 0, text
    for shown in ("Epoch 1/1", "Sampling", "Real images", "val/mean_pixel", "lightning-gen sample"):
        assert shown in text, text
