"""Captions on the command line: rows of a grid, ways from one to another, pictures under another caption."""

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor

from lightning_gen.callbacks import CaptionGrid
from lightning_gen.callbacks.files import captioned_grid
from lightning_gen.cli import main
from lightning_gen.errors import LightningGenError
from lightning_gen.models import GANINTCLS, VAE
from tests.digits import quiet_trainer
from tests.models.test_gan_int_cls import batches, lettered, small
from tests.test_cli import one_line_error

SCALE, SIDE, PANEL = 8, 64, 180  # Images of 8 x 8 are enlarged beside a panel.


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the checkpoint of a model that draws captions, and the pictures of its training."""
    folder = tmp_path_factory.mktemp("captions")
    model, _ = lettered(style_from_epoch=1)
    (batch,) = batches(1, 6)
    data: Any = torch.utils.data.DataLoader([{**batch, "caption": list("abcdea")}] * 2, batch_size=None)  # type: ignore
    grid = CaptionGrid(["an a", "a bed"], num_columns=3)
    trainer = quiet_trainer(max_epochs=2, callbacks=[grid], default_root_dir=folder)
    trainer.fit(model, data, data)
    trainer.save_checkpoint(folder / "last.ckpt")
    return folder


def model_of(run: Path) -> GANINTCLS:
    return GANINTCLS.load_from_checkpoint(run / "last.ckpt", weights_only=True)


def images_in(path: Path, rows: int, columns: int, left: int, side: int) -> Tensor:
    """The images of a grid, one pixel of each square of an enlarged one, `(rows * columns, 8, 8)` in [0, 1]."""
    picture = pil_to_tensor(Image.open(path))[0, :, left:] / 255
    assert picture.shape == (rows * (side + 2) + 2, columns * (side + 2) + 2)
    cells = [picture[2 + r * (side + 2) :, 2 + c * (side + 2) :] for r in range(rows) for c in range(columns)]
    return torch.stack([cell[:side, :side][:: side // 8, :: side // 8] for cell in cells])


def assert_shown(shown: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(shown, expected[:, 0], rtol=0, atol=1.01 / 255)


def test_a_row_for_each_caption_of_a_file(run: Path, tmp_path: Path) -> None:
    (tmp_path / "captions.txt").write_text("a bed\n\n  an ace \n")
    output = tmp_path / "rows.png"
    options = ["--captions", str(tmp_path / "captions.txt"), "--num_columns", "3", "--output", str(output)]
    main(["sample", "--ckpt_path", str(run / "last.ckpt"), *options])
    model = model_of(run)
    expected = [
        model.sample(3, {"caption": [text] * 3}, generator=torch.Generator().manual_seed(0))
        for text in ("a bed", "an ace")
    ]
    assert_shown(images_in(output, 2, 3, PANEL, SIDE), torch.cat(expected))


def test_a_word_that_was_never_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is said in one line, and the picture is drawn."""
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)  # As before, after the test.
    model = small(encoder="lightning_gen.nn.BagOfWords", encoder_args={"words": "a one red two three"})
    trainer = quiet_trainer(max_epochs=0)
    trainer.fit(model, batches(1, 6))
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    options = ["--condition.caption", "a redd one", "--output", str(tmp_path / "one.png")]
    with pytest.warns(UserWarning, match="never seen") as warned:
        main(["sample", "--ckpt_path", str(tmp_path / "last.ckpt"), *options])
    (found,) = (warning for warning in warned if "never seen" in str(warning.message))
    line = warnings.formatwarning(found.message, found.category, found.filename, found.lineno)
    assert line.startswith("lightning-gen: warning: The model has never seen 'redd', which is left out; ")
    assert line.endswith("the nearest that it knows: red, three.\n")
    assert (tmp_path / "one.png").is_file()


def test_one_caption(run: Path, tmp_path: Path) -> None:
    output = tmp_path / "bed.png"
    options = ["--condition.caption", "a bed", "--num_samples", "4", "--num_columns", "2", "--output", str(output)]
    main(["sample", "--ckpt_path", str(run / "last.ckpt"), *options])
    expected = model_of(run).sample(4, {"caption": ["a bed"] * 4}, generator=torch.Generator().manual_seed(0))
    assert_shown(images_in(output, 2, 2, 0, 8), expected)


def test_a_picture_under_another_caption(run: Path, tmp_path: Path) -> None:
    source, output = tmp_path / "bed.png", tmp_path / "ace.png"
    common = ["sample", "--ckpt_path", str(run / "last.ckpt"), "--num_samples", "2", "--num_columns", "2"]
    main([*common, "--condition.caption", "a bed", "--output", str(tmp_path / "bed")])
    Image.open(tmp_path / "bed" / "00000.png").convert("L").save(source)
    main([*common, "--condition.caption", "an ace", "--condition.source", str(source), "--output", str(output)])
    model, picture = model_of(run), images_of(source)
    expected = model.sample(1, {"caption": ["an ace"], "source": picture})
    assert_shown(images_in(output, 1, 2, 0, 8), expected.expand(2, -1, -1, -1))


def images_of(path: Path) -> Tensor:
    return pil_to_tensor(Image.open(path))[None, :1, 0:8, 0:8] / 255


def test_from_caption_to_caption(run: Path, tmp_path: Path) -> None:
    output = tmp_path / "way.png"
    captions = ["--captions", "a", "--captions", "bed", "--captions", "ace"]
    options = ["--num_points", "2", "--num_steps", "3", "--output", str(output)]
    main(["interpolate", "--ckpt_path", str(run / "last.ckpt"), *captions, *options])
    shown = images_in(output, 2, 6, 0, 8)
    model = model_of(run).eval()
    torch.manual_seed(0)
    z = model.sample_latent(2)
    a, bed, ace = model.embed_captions(["a", "bed", "ace"])
    way = torch.stack([a, (a + bed) / 2, bed, bed, (bed + ace) / 2, ace])
    with torch.no_grad():
        assert_shown(shown, torch.cat([model.decode(point.expand(6, -1), {"text_embedding": way}) for point in z]))


def test_from_noise_to_noise_under_a_caption(run: Path, tmp_path: Path) -> None:
    output = tmp_path / "way.png"
    options = ["--num_points", "2", "--num_steps", "3", "--condition.caption", "bed", "--output", str(output)]
    main(["interpolate", "--ckpt_path", str(run / "last.ckpt"), *options])
    model = model_of(run).eval()
    torch.manual_seed(0)
    a, b = model.sample_latent(2)
    with torch.no_grad():
        expected = model.decode(torch.stack([a, (a + b) / 2, b, b, (a + b) / 2, a]), {"caption": ["bed"] * 6})
    assert_shown(images_in(output, 2, 3, 0, 8), expected)


def test_what_cannot_be_drawn_is_said(run: Path, checkpoint: Path, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "empty.txt").write_text("\n \n")
    ours, other = ["--ckpt_path", str(run / "last.ckpt")], ["--ckpt_path", str(checkpoint)]
    output = ["--output", str(tmp_path / "a.png")]
    for command, message in [
        (["sample", *ours, "--captions", str(tmp_path / "empty.txt"), *output], "holds no captions"),
        (["sample", *ours, "--captions", str(tmp_path / "none.txt"), *output], "none.txt"),
        (["sample", *ours, *output], "needs a condition with caption"),
        (["interpolate", *ours, "--captions", "a", *output], "got 1 captions to walk between; expected at least two"),
        (["interpolate", *other, "--captions", "a", "--captions", "b", *output], "VAE got 2 captions"),
        (["interpolate", *ours, *output], "give --condition.caption"),
    ]:
        assert message in one_line_error(capsys, *command)
    assert [path.name for path in tmp_path.iterdir()] == ["empty.txt"]


def test_captions_are_drawn_as_training_goes_on(run: Path) -> None:
    assert sorted(path.name for path in (run / "captions").iterdir()) == ["epoch=0000.png", "epoch=0001.png"]
    condition = {"caption": ["an a"] * 3 + ["a bed"] * 3}
    expected = model_of(run).sample(6, condition, generator=torch.Generator().manual_seed(0))
    assert_shown(images_in(run / "captions" / "epoch=0001.png", 2, 3, PANEL, SIDE), expected)
    with pytest.raises(LightningGenError, match="draws captions, and VAE takes none"):
        CaptionGrid(["a"]).setup(quiet_trainer(), VAE(), "fit")


def test_the_caption_stands_beside_its_row() -> None:
    picture = captioned_grid(torch.rand(4, 3, 32, 32), ["a long caption that takes more than one line", ""], 2)
    assert picture.shape == (3, 2 * 66 + 2, 180 + 2 * 66 + 2)
    written = (picture[:, :, :180] < 0.5).all(0).any(1)
    assert written[:67].sum() > 12  # Two lines.
    assert not written[67:].any()
