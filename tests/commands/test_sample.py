import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lightning_gen.cli import main
from lightning_gen.models import ACGAN, CGAN, VAE, Pix2Pix, base
from tests.digits import quiet_trainer
from tests.test_cli import one_line_error


def test_grid_has_the_models_samples(checkpoint, tmp_path):
    output = tmp_path / "grid.png"
    main(
        ["sample", "--ckpt_path", str(checkpoint), "--num_samples", "6", "--num_columns", "3", "--output", str(output)]
    )
    grid = Image.open(output)
    assert grid.size == (3 * (6 + 2) + 2, 2 * (8 + 2) + 2)
    model = VAE.load_from_checkpoint(checkpoint, weights_only=True)
    torch.manual_seed(0)
    expected = model.sample(6)[4, 0].mul(255).round()  # Second row, second column.
    assert np.array_equal(np.asarray(grid)[12:20, 10:16, 0], expected.numpy())
    assert sorted(tmp_path.iterdir()) == [output]


def test_folder_gets_one_image_each(checkpoint, tmp_path):
    output = tmp_path / "images"
    main(["sample", "--ckpt_path", str(checkpoint), "--num_samples", "103", "--output", str(output)])
    files = sorted(output.iterdir())
    assert [files[0].name, files[-1].name, len(files)] == ["00000.png", "00102.png", 103]
    assert Image.open(files[0]).size == (6, 8)
    assert files[100].read_bytes() != files[0].read_bytes()  # The second chunk goes on with the random stream.
    assert sorted(tmp_path.iterdir()) == [output]


def test_seed_decides(checkpoint, tmp_path):
    def draw(seed: int) -> bytes:
        path = tmp_path / "grid.png"
        main(["sample", "--ckpt_path", str(checkpoint), "--output", str(path), "--seed", str(seed)])
        return path.read_bytes()

    assert draw(1) == draw(1) != draw(2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--condition.lable", "3"], "did you mean --condition.label?"),
        (["--condition.label", "3"], "does not know the condition ['label']"),
        (["--num_samples", "0"], "num_samples is 0"),
        (["--device", "mps"], "no mps device here"),
    ],
)
def test_bad_options(options, message, checkpoint, tmp_path, capsys):
    output = tmp_path / "grid.png"
    error = one_line_error(capsys, "sample", "--ckpt_path", str(checkpoint), "--output", str(output), *options)
    assert message in error
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing/grid.png", "cannot be written"),
        ("file/grid.png", "cannot be written"),
        ("file", "is there already"),
        ("folder.png", "is there already"),
        ("grid.jpg", "expected .png"),
    ],
)
def test_output_that_cannot_be_written_is_refused_before_sampling(name, message, tmp_path, capsys):
    (tmp_path / "file").touch()
    (tmp_path / "folder.png").mkdir()
    before = sorted(tmp_path.rglob("*"))
    error = one_line_error(capsys, "sample", "--ckpt_path", "not read yet", "--output", str(tmp_path / name))
    assert message in error
    assert sorted(tmp_path.rglob("*")) == before


def test_label_becomes_rows_and_caption_stays_text(checkpoint, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(VAE, "check_condition", lambda self, condition, *rest: seen.append(condition))
    options = ["--num_samples", "2", "--condition.label", "3", "--condition.caption", "7"]
    main(["sample", "--ckpt_path", str(checkpoint), "--output", str(tmp_path / "grid.png"), *options])
    assert seen[0]["label"].tolist() == [3, 3]
    assert seen[0]["caption"] == ["7", "7"]


def test_a_picture_is_translated(tmp_path):
    """In its own size, and as grey or colour as it was saved."""
    torch.manual_seed(0)
    model = Pix2Pix((3, 16, 16), source_channels=1, num_levels=3, base_channels=2, patch_size=16, dropout=0.0)
    trainer = quiet_trainer()
    trainer.strategy.connect(model)
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    source = (torch.rand(1, 24, 40) * 255).byte()
    Image.fromarray(source[0].numpy()).save(tmp_path / "source.png")
    output = tmp_path / "grid.png"
    options = ["--num_samples", "2", "--condition.source", str(tmp_path / "source.png"), "--output", str(output)]
    main(["sample", "--ckpt_path", str(tmp_path / "model.ckpt"), *options])
    shown = torch.from_numpy(np.array(Image.open(output))).permute(2, 0, 1) / 255
    expected = model.sample(1, {"source": source[None] / 255})[0]
    torch.testing.assert_close(shown[:, 2:26, 44:84], expected, atol=0.5 / 255 + 1e-6, rtol=0)


# Several checkpoints ------------------------------------------------------------------------------------------------


class Shade(ACGAN):
    """Draws its label's shade of grey: label / 10, of ten classes in all."""

    def decode(self, z, condition=None):
        labels = self.check_condition(condition, len(z))["label"]
        return (labels / 10).view(-1, 1, 1, 1).expand(-1, *self.image_shape)


def shades(folder, **models):
    """Checkpoints of models that have two classes each, and the options that name them."""
    options = []
    for name, classes in models.items():
        model = Shade((1, 4, 4), 10, classes, 2, (2,), (2,))
        trainer = quiet_trainer(max_epochs=0)
        trainer.strategy.connect(model)
        path = folder / f"{name}.ckpt"
        trainer.save_checkpoint(path)
        options += ["--ckpt_path", str(path)]
    return options


def levels(folder):
    """What `Shade` drew, image by image, as labels."""
    return [round(np.asarray(Image.open(path)).mean() / 25.5) for path in sorted(folder.iterdir())]


def test_several_checkpoints_are_sampled_in_turn(tmp_path):
    options = shades(tmp_path, a=[1, 2], b=[8, 9], c=[5])
    main(["sample", *options, "--num_samples", "305", "--output", str(tmp_path / "out")])
    drawn = levels(tmp_path / "out")
    assert len(drawn) == 305
    assert [set(drawn[turn::3]) for turn in range(3)] == [{1, 2}, {8, 9}, {5}]
    (_, a, _, b, _, c) = options
    main(["sample", "--ckpt_path", f"[{a},{b},{c}]", "--num_samples", "2", "--output", str(tmp_path / "two")])
    assert [level > 5 for level in levels(tmp_path / "two")] == [False, True]


def test_a_label_is_drawn_by_those_that_know_it(tmp_path):
    options = shades(tmp_path, a=[1, 2], b=[8, 9], c=[2, 3])
    for label in (2, 9):
        folder = tmp_path / str(label)
        main(["sample", *options, "--num_samples", "5", "--condition.label", str(label), "--output", str(folder)])
        assert levels(folder) == [label] * 5


def test_a_label_that_no_checkpoint_knows(tmp_path, capsys):
    options = shades(tmp_path, a=[1, 2], b=[8, 9])
    error = one_line_error(capsys, "sample", *options, "--condition.label", "5", "--output", str(tmp_path / "x.png"))
    assert "No checkpoint of 2 takes this" in error
    assert "this one has the classes [1, 2] of 10" in error
    assert "this one has the classes [8, 9] of 10" in error
    assert not (tmp_path / "x.png").exists()


def test_checkpoints_of_different_models(checkpoint, tmp_path, capsys):
    options = [*shades(tmp_path, a=[1, 2]), "--ckpt_path", str(checkpoint)]
    error = one_line_error(capsys, "sample", *options, "--output", str(tmp_path / "x.png"))
    assert "a.ckpt of Shade of (1, 4, 4)" in error
    assert f"{checkpoint.name} of VAE of (1, 8, 6); sample those of a kind together." in error


def test_many_images_take_no_more_memory_than_few(tmp_path: Path) -> None:
    """Pictures go to the folder as they are drawn: 1,500 of them would be 280 MiB."""
    trainer = quiet_trainer(default_root_dir=tmp_path)
    trainer.strategy.connect(VAE((3, 128, 128), 2, 2, decoder="gaussian"))
    trainer.save_checkpoint(tmp_path / "a.ckpt", weights_only=True)
    script = """
import resource, sys
from lightning_gen.cli import main
for number in (150, 1500):
    main(["sample", "--ckpt_path", sys.argv[1], "--num_samples", str(number), "--output", f"{sys.argv[2]}/{number}"])
    print("peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
    command = [sys.executable, "-c", script, str(tmp_path / "a.ckpt"), str(tmp_path)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    few, many = (int(line.split()[1]) / 1024 for line in said.splitlines() if line.startswith("peak"))
    assert len(list((tmp_path / "1500").iterdir())) == 1500
    assert many - few < 60


def test_a_model_draws_many_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "AT_ONCE", 16_000)  # A thousand of 4 x 4.
    model = CGAN(image_shape=(1, 4, 4), hidden_sizes=(4, 4, 8), maxout_units=(4, 4, 4)).eval()
    sizes: list[int] = []
    decode = model.generator.forward
    monkeypatch.setattr(model.generator, "forward", lambda *given: (sizes.append(len(given[0])), decode(*given))[1])
    labels = torch.arange(2300) % 10
    images = model.sample(2300, {"label": labels}, generator=torch.Generator().manual_seed(1))
    assert sizes == [1000, 1000, 300]
    generator = torch.Generator().manual_seed(1)
    parts = [model.sample(len(part), {"label": part}, generator=generator) for part in labels.split(1000)]
    torch.testing.assert_close(images, torch.cat(parts))
