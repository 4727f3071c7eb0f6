"""What one other word changes, and whether one pose is one style, from checkpoints alone."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_gen.cli import main
from lightning_gen.commands.reword import shares
from lightning_gen.datamodules import CaptionedDigitsDataModule, DigitsDataModule, PlacedDigitsDataModule
from lightning_gen.datamodules.captioned_digits import FORMS
from lightning_gen.functional.captions import ATTRIBUTES, read_digit_caption
from lightning_gen.models import GAN, GANINTCLS, AttributeClassifier
from lightning_gen.nn.attributes import AttributeNetwork
from tests.digits import quiet_trainer
from tests.test_cli import one_line_error

SIZES: dict[str, Any] = {"generator_channels": 4, "discriminator_channels": 4, "text_features": 4, "latent_dim": 3}
SAID = [*FORMS, "an", *(name for values in ATTRIBUTES.values() for names in values for name in names)]
WORDS = sorted({word for text in SAID for word in re.findall(r"[a-z0-9]+", text)})


def save(model: Any, path: Path, data: Any) -> str:
    trainer = quiet_trainer(max_epochs=0, num_sanity_val_steps=0)
    trainer.fit(model, datamodule=data)
    trainer.save_checkpoint(path)
    return str(path)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Untrained networks: one under captions, one with a style encoder, the judge, and one without captions."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("saved")
    bag: dict[str, Any] = {"encoder": "lightning_gen.nn.BagOfWords", "encoder_args": {"words": WORDS}}
    sizes = {**SIZES, **bag, "text_dim": len(WORDS)}
    captioned, placed = CaptionedDigitsDataModule(), PlacedDigitsDataModule(classes=[0, 1])
    style = GANINTCLS((3, 32, 32), style_from_epoch=1, **sizes)
    style.style_learned.fill_(True)
    return {
        "words": save(GANINTCLS((3, 32, 32), **sizes), folder / "words.ckpt", captioned),
        "style": save(style, folder / "style.ckpt", placed),
        "judge": save(AttributeClassifier(base_channels=2, num_features=4), folder / "judge.ckpt", captioned),
        "plain": save(GAN(hidden_size=4), folder / "plain.ckpt", DigitsDataModule()),
    }


def test_shares_by_hand() -> None:
    before = torch.tensor([[1, 0], [1, 0], [1, 0], [2, 0]])
    after = torch.tensor([[2, 0], [2, 1], [1, 0], [2, 0]])
    asked = torch.tensor([[2, 0], [2, 0], [2, 0], [2, 0]])
    # The second changes more than it should, the third nothing, and the fourth was like that before.
    assert shares(before, after, asked, 0) == ["50.0 ± 25.0", "75.0 ± 21.7", "25.0 ± 21.7"]


@pytest.mark.parametrize("deaf", [None, "colour", "digit"])
def test_one_word_changes_what_it_says(
    deaf: str | None, saved: dict[str, str], capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a model that draws what captions say, or all but one attribute, and a judge who sees it."""
    names = list(ATTRIBUTES)
    noise: list[int] = []

    def sample(self: Any, number: int, condition: dict[str, list[str]], generator: torch.Generator) -> Tensor:
        noise.append(int(torch.randint(10**9, (), generator=generator)))
        drawn = torch.zeros(number, 3, 32, 32)
        for picture, text in zip(drawn, condition["caption"], strict=True):
            values = read_digit_caption(text)
            assert values is not None
            picture[0, 0, :5] = torch.tensor([0 if name == deaf else v for name, v in zip(names, values, strict=True)])
        return drawn

    monkeypatch.setattr(GANINTCLS, "sample", sample)
    monkeypatch.setattr(AttributeNetwork, "forward", lambda self, images: images)
    monkeypatch.setattr(AttributeNetwork, "read", lambda self, images: images[:, 0, 0, :5].long())
    main(["reword", "--ckpt_path", saved["words"], "--judge", saved["judge"], "--num_samples", "40"])
    head, *rows, foot = capsys.readouterr().out.splitlines()
    assert "both" in head
    assert foot.startswith("40 captions of test images, the same noise")
    assert len(set(noise)) == 1
    for name, row in zip(names, rows, strict=True):
        kept = "0.0 ± 0.0" if name == deaf else "100.0 ± 0.0"
        assert row.split(maxsplit=1) == [name, " ".join(f"{v:>12}" for v in (kept, "100.0 ± 0.0", kept)).strip()]


def test_untrained_networks_draw_too(saved: dict[str, str], capsys: Any) -> None:
    main(["reword", "--ckpt_path", saved["words"], "--judge", saved["judge"], "--num_samples", "20"])
    assert len(capsys.readouterr().out.splitlines()) == 7
    message = one_line_error(capsys, "reword", "--ckpt_path", saved["plain"], "--judge", saved["judge"])
    assert "trained on DigitsDataModule; expected a model under captions" in message


def test_styles_of_one_pose(saved: dict[str, str], capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of an encoder that sees the pose, and of one that sees nothing."""
    data = PlacedDigitsDataModule(classes=[0, 1])
    data.setup()
    columns: Any = data.datasets["test"].columns  # type: ignore[attr-defined]
    keypoints = columns["keypoints"].flatten(1)
    seen = keypoints - keypoints.mean(0)
    options = ["styles", "--ckpt_path", saved["style"], "--num_clusters", "10"]
    values = []
    for vectors in (seen, torch.randn(seen.shape, generator=torch.Generator().manual_seed(0))):
        monkeypatch.setattr(GANINTCLS, "encode", lambda self, images, vectors=vectors: vectors)
        main(options)
        first, second, foot = capsys.readouterr().out.splitlines()
        values.append(float(first.split()[1]))
        assert second.startswith("pixels: ")
        assert foot.startswith(f"{len(keypoints)} test images")
    assert values[0] > 80
    assert abs(values[1] - 50) < 3


def test_what_has_no_styles_is_named(saved: dict[str, str], capsys: Any) -> None:
    for name, message in (("words", "GANINTCLS has no style encoder"), ("plain", "GAN has no style encoder")):
        assert message in one_line_error(capsys, "styles", "--ckpt_path", saved[name])
