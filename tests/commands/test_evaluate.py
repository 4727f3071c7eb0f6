"""A folder of images, judged as a model is."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from lightning_gen.callbacks.files import image_grid, write_png
from lightning_gen.cli import main
from lightning_gen.errors import DataError, DatasetNotFoundError
from lightning_gen.judging import Replay
from lightning_gen.metrics import InceptionScore, Samples
from lightning_gen.nn import DigitFeatures
from tests.digits import training_digits
from tests.test_cli import one_line_error

DIGITS = ["--data", "DigitsDataModule", "--accelerator", "cpu"]


def write(folder: Path, images: torch.Tensor) -> Path:
    for index, image in enumerate(images):
        write_png(image, folder / f"{index:03}.png")
    return folder


def figures(folder: Path) -> dict[str, dict[str, object]]:
    (path,) = folder.glob("logs/evaluate/version_*/figures.json")
    (content,) = json.loads(path.read_text()).values()
    return {figure["name"]: figure for figure in content["figures"]}


def test_a_lookup_table_wins_and_is_flagged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    """Training images as samples: no model of the package has as low a distance, and both spaces tell why."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "copies", training_digits()[:500])
    main(["evaluate", "--samples", "copies", *DIGITS, "--extractor", "DigitFeatures"])
    found = figures(tmp_path)
    assert found["test/fid_digits"]["value"] < 3, "as low as of real images, and lower than any model's"
    assert found["test/inception_score_digits"]["value"] > 8.5
    for name in ("test/memorized", "test/memorized_digits"):
        assert found[name]["value"] == 1
        assert "MEMORISED" in found[name]["protocol"]
    assert found["test/mmd_p_value"]["value"] > 0.05
    assert "MEMORISED" in capsys.readouterr().out
    assert sorted(path.parent.name for path in tmp_path.glob("logs/evaluate/version_0/*/test.png")) == [
        "neighbors",
        "pairs",
    ]


def test_blank_images_lose_and_are_no_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "noise", torch.rand(40, 1, 28, 28))
    main(["evaluate", "--samples", "noise", *DIGITS, "--split", "val", "--num_samples", "30"])
    found = figures(tmp_path)
    assert set(found) == {f"val/{name}" for name in ("parzen", "mmd_p_value", "memorized", "support")}
    assert found["val/memorized"]["value"] == 0
    assert found["val/mmd_p_value"]["value"] < 0.01
    assert found["val/memorized"]["protocol"].startswith("30 samples, 500 val images")


def test_a_checkpoint(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    main(["evaluate", "--ckpt_path", str(checkpoint), "--num_samples", "20", "--accelerator", "cpu"])
    assert figures(tmp_path)["test/parzen"]["protocol"].startswith("20 samples, 32 test images")


def test_all_images_are_replayed_once_and_then_from_the_first_again(tmp_path: Path) -> None:
    images = torch.randint(256, (5, 1, 4, 6)) / 255
    model = Replay(write(tmp_path, images), (1, 4, 6))
    drawn = torch.cat([model.sample(3), model.sample(4)])
    order = [int((images == image).all((1, 2, 3)).nonzero()) for image in drawn[:5]]
    assert sorted(order) == [0, 1, 2, 3, 4] != order
    torch.testing.assert_close(drawn[5:], drawn[:2])


def test_a_part_of_a_folder_is_drawn_by_a_seed(tmp_path: Path) -> None:
    """Names class by class, as `sample` writes them for one label after the other."""
    write(tmp_path, torch.arange(10).repeat_interleave(20).div(10)[:, None, None, None].expand(-1, 1, 4, 4))
    counts = [
        Replay(tmp_path, (1, 4, 4), 50, seed).sample(50)[:, 0, 0, 0].unique(return_counts=True) for seed in (0, 1)
    ]
    for classes, number in counts:
        assert len(classes) == 10
        assert number.sum() == 50
    assert not torch.equal(counts[0][1], counts[1][1])
    assert torch.equal(*(Replay(tmp_path, (1, 4, 4), 50, seed=3).sample(50) for _ in range(2)))


def test_the_order_of_names_says_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same real digits in a folder for each class and in one: a perfect model, whatever their names."""
    monkeypatch.chdir(tmp_path)
    images = training_digits()[:1000]
    classes = DigitFeatures()(images).logits.argmax(1)
    write(tmp_path / "sorted", images[classes.argsort(stable=True)])
    write(tmp_path / "mixed", images)
    scores = {}
    for folder in ("sorted", "mixed"):
        metric = InceptionScore()
        metric.bind(DigitFeatures())
        samples = Replay(tmp_path / folder, (1, 28, 28)).sample(1000)
        metric.update(Samples(samples, *DigitFeatures()(samples)))
        scores[folder] = metric.compute().item()
    assert scores["sorted"] == pytest.approx(scores["mixed"], rel=0.03)
    assert scores["sorted"] > 9.2


def test_grey_samples_may_have_been_saved_in_colour(tmp_path: Path) -> None:
    """As `sample` writes them."""
    grey = torch.randint(256, (1, 1, 5, 5)) / 255
    write_png(image_grid(grey, 1, padding=0), tmp_path / "0.png")
    torch.testing.assert_close(Replay(tmp_path, (1, 5, 5)).sample(1), grey)
    write_png(torch.rand(3, 5, 5), tmp_path / "0.png")
    with pytest.raises(DataError, match=r"0\.png is in colour, and the real images are grey"):
        Replay(tmp_path, (1, 5, 5)).sample(1)


def test_folders_that_cannot_be_judged(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(DatasetNotFoundError, match=r"no images in .* lightning-gen sample"):
            Replay(folder, (1, 4, 4))
    write(tmp_path / "small", torch.rand(3, 1, 4, 4))
    with pytest.raises(DataError, match=r"have the shape \(1, 4, 4\), the real images \(1, 8, 8\); give both the same"):
        Replay(tmp_path / "small", (1, 8, 8))
    with pytest.raises(DataError, match=r"have the shape \(1, 4, 4\), the real images \(3, 4, 4\)"):
        Replay(tmp_path / "small", (3, 4, 4))
    with pytest.raises(DataError, match="num_samples is 4; there are 1 to 3 images"):
        Replay(tmp_path / "small", (1, 4, 4), 4)
    write_png(torch.rand(3, 4, 4), tmp_path / "small" / "colour.png")
    with pytest.raises(DataError, match=r"colour\.png has the shape \(3, 4, 4\), .*000\.png \(1, 4, 4\); give samples"):
        Replay(tmp_path / "small", (1, 4, 4))
    (tmp_path / "small" / "damaged.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"damaged\.png cannot be read as a picture .*; replace or remove it"):
        Replay(tmp_path / "small", (1, 4, 4))


def test_a_picture_cut_short_is_named(tmp_path: Path) -> None:
    write_png(torch.rand(1, 40, 40), tmp_path / "0.png")
    (tmp_path / "0.png").write_bytes((tmp_path / "0.png").read_bytes()[:-300])
    with pytest.raises(DataError, match=r"0\.png cannot be read as a picture"):
        Replay(tmp_path, (1, 40, 40)).sample(1)


def test_sixteen_bits_are_scaled(tmp_path: Path) -> None:
    Image.fromarray((torch.full((4, 4), 0.5) * 65535).round().to(torch.uint16).numpy()).save(tmp_path / "0.png")
    torch.testing.assert_close(Replay(tmp_path, (1, 4, 4)).sample(1), torch.full((1, 1, 4, 4), 128 / 255))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "Give one of --samples, a folder of images, and --ckpt_path"),
        (["--samples", "a", "--ckpt_path", "b"], "Give one of --samples"),
        (["--samples", "a"], "A folder is compared with real images; name them: --data"),
        (["--ckpt_path", "b"], "There is no checkpoint b"),
    ],
)
def test_commands_that_lack_something(options: list[str], message: str, capsys) -> None:
    assert message in one_line_error(capsys, "evaluate", *options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--extractor", "LabelFeatures", "--extractor.ckpt_path", "nothere.ckpt"], "nothere.ckpt is no checkpoint of"),
        (["--extractor", "InceptionV3", "--extractor.weights", "nothere.pth"], "There is no file nothere.pth"),
        (["--data", "DigitsDataModule", "--data.batch_size", "0"], "DigitsDataModule got batch_size=0; expected"),
    ],
)
def test_what_cannot_be_built_is_one_line(options: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Not jsonargparse's list of the types that it tried."""
    error = one_line_error(capsys, "evaluate", "--samples", "images", *options)
    assert error.startswith(f"lightning-gen: error: {message}")
    assert "Union" not in error
