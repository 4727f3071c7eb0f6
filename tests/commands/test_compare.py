"""Runs side by side: what stands in the table and on the page, and the page as a browser shows it."""

import base64
import io
import json
import re
import shutil
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rich
from PIL import Image
from torch.utils.tensorboard import SummaryWriter

from lightning_gen.callbacks.base import Figure
from lightning_gen.cli import main
from lightning_gen.commands.comparison import is_memorised, read_published, what_differs
from lightning_gen.commands.page import LEFT, RIGHT, TOP, Line, chart, round_numbers, spread
from lightning_gen.commands.runs import find_run, read_curves
from lightning_gen.commands.study import fingerprint
from tests.browser import chromium, opened
from tests.commands.test_study import NAMES, answer, results
from tests.conftest import DATA, QUIET
from tests.test_cli import one_line_error


def figure(name: str, value: float, protocol: str = "8 samples", **others: Any) -> dict[str, Any]:
    given = {"standard_error": None, "real": None, "stage": name.partition("/")[0], "epoch": 0, **others}
    return {"name": name, "value": value, "protocol": protocol, **given}


def write_figures(folder: Path, stage: str, *figures: dict[str, Any], **others: Any) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    content = {stage: {"figures": list(figures), "pictures": [], "checkpoint": "", **others}}
    (folder / "figures.json").write_text(json.dumps(content))


@pytest.fixture(scope="module")
def logs(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Logs of a VAE, with a test in the folder beside it and answers of people, and of a GAN, on the same images."""
    folder = tmp_path_factory.mktemp("logs")
    shutil.copytree(checkpoint.parents[2], folder / "vae_fake")
    gan = ["--model", "GAN", "--model.hidden_size", "4", "--model.latent_dim", "2", "--trainer.max_epochs", "2"]
    main(["fit", *gan, *DATA, *QUIET, "--trainer.log_every_n_steps", "1", "--trainer.default_root_dir", str(folder)])
    vae = folder / "vae_fake" / "version_0"
    common = figure("test/parzen", -5, "8 samples, sigma 0.2 of 10", standard_error=0.25, real=-2)
    write_figures(
        vae.with_name("version_1"),
        "test",
        common,
        figure("test/fid_digits", 20, "8 samples on digits"),
        figure("test/memorized", 0.875, "nearer to one of 32 training images, over 0.5: MEMORISED"),
        checkpoint="elsewhere/vae_fake/version_0/checkpoints/last.ckpt",
    )
    write_figures(
        folder / "gan_fake" / "version_0",
        "fit",
        figure("test/parzen", 30),
        figure("test/parzen", 3, "8 samples, sigma 0.3 of 10", real=-2),
        figure("test/fid_digits", 10, "9 samples on digits"),
        figure("test/memorized", 0.25, "nearer to one of 32 training images"),
    )
    answers = [answer(NAMES[True][0], "real"), answer(NAMES[False][0], "real", 500, 500)]
    answers += [answer(NAMES[False][1], "generated", 500, 500), answer(NAMES[True][1], "real", 500, 500)]
    content = results(answers, checkpoint=fingerprint(vae / "checkpoints" / "last.ckpt"))
    (vae / "study-1.json").write_text(json.dumps(content))
    return folder


@pytest.fixture
def compared(logs, tmp_path, capsys, monkeypatch) -> tuple[Path, str]:
    """The page of both runs, and what was printed."""
    monkeypatch.setattr(rich.get_console(), "width", 120)
    capsys.readouterr()
    output = tmp_path / "compare.html"
    main(["compare", str(logs / "vae_fake"), str(logs / "gan_fake" / "version_0"), "--output", str(output)])
    return output, capsys.readouterr().out


def table_rows(page: str) -> dict[str, list[str]]:
    """The cells of every row of a page, as text, by the first of them."""
    lines = re.findall(r"<tr>(.*?)</tr>", page, re.S)
    rows = [re.findall(r"<t[hd].*?>(.*?)</t[hd]>", line, re.S) for line in lines]
    words = [[unescape(re.sub(r"<[^>]*>", " ", cell)).split() for cell in row] for row in rows]
    return {"".join(first): [" ".join(cell) for cell in cells] for first, *cells in words}


def test_table_has_every_figure_with_its_protocol(compared):
    _, printed = compared
    lines = [[cell.strip() for cell in line.split("│")[1:-1]] for line in printed.splitlines()]
    cells: dict[str, list[str]] = {}
    for line in filter(None, lines):
        if re.match(r"\w+/", line[0]):
            name = line[0]
        cells.setdefault(name if len(line) == 3 else "answers", []).append(" | ".join(line))
    assert cells["test/parzen"][0] == "test/parzen | -5 ± 0.25 | 3"
    assert cells["test/parzen"][1] == " | real -2 | real -2"
    assert cells["test/fid_digits"][1].startswith("≠ protocols |")
    assert "⚠ memorised" in " ".join(cells["test/memorized"])
    assert " ".join(cells["test/memorized"]).count("⚠") == 1
    (number,) = set(re.findall(r"\((\d+)\)", " ".join(cells["test/parzen"])))  # One protocol for both.
    assert f"({number}) 8 samples, sigma of 10; Fake (" in printed
    numbers = re.findall(r"\((\d+)\)", " ".join(cells["test/fid_digits"]))
    assert f"({numbers[0]}) 8 samples on digits" in printed
    assert f"({numbers[1]}) 9 samples on digits" in printed
    assert "test/parzen" in printed.partition("val/nll")[0], "test comes first"
    assert "500 ms | A | 0.50 ± 0.35 | 1.00 ± 0.47 | 2 + 1" in cells["answers"][-1]


def test_page_has_samples_figures_curves_and_settings(compared, logs, tmp_path):
    path, _ = compared
    page = path.read_text()
    pictures = re.findall(r'<img src="data:image/png;base64,([^"]+)"', page)
    for name, picture in zip(("vae_fake", "gan_fake"), pictures, strict=True):
        checkpoint = logs / name / "version_0" / "checkpoints" / "last.ckpt"
        main(["sample", "--ckpt_path", str(checkpoint), "--output", str(tmp_path / "a.png")])
        drawn = Image.open(io.BytesIO(base64.b64decode(picture)))
        assert np.array_equal(np.asarray(drawn), np.asarray(Image.open(tmp_path / "a.png")))
    rows = table_rows(page)
    assert rows["test/parzen"][:3] == ["-5 ± 0.25 real -2 sigma 0.2", "3 real -2 sigma 0.3", "8 samples, sigma of 10"]
    assert rows["test/fid_digits≠protocols"][0].startswith("20 8 samples on digits; Fake (")
    assert rows["test/fid_digits≠protocols"][1].startswith("10 9 samples on digits; Fake (")
    assert rows["test/memorized"][0] == "0.875 ⚠ memorised over 0.5: MEMORISED"
    assert rows["val/nll"][1] == "–"
    assert rows["model.hidden_size"][:2] == ["9", "4"]
    assert rows["50ms"][:4] == ["A", "", "1.00 ± 0.47", "1"]
    assert rows["GAN,fullyconnected"][1] == "TorontoFaces"
    assert rows["GAN,fullyconnected"][2].startswith("2057 ± 26 10,000 samples")
    assert rows["GAN,fullyconnected"][3].startswith("B other data: Fake")
    titles = re.findall(r"<figcaption>(.*?)</figcaption>", page)
    assert {"train/loss_d", "train/loss_g"} <= set(titles)
    assert not re.search(r"https?://|<link|<script|@import|url\(", page)


def test_looks_right_in_a_browser(compared):
    path, _ = compared
    with chromium() as browser:
        for width in (1280, 375):
            for dark in (False, True):
                with opened(browser, path, width, dark) as (page, wrong):
                    assert page.evaluate("document.documentElement.scrollWidth") == width
                    widths = page.evaluate("[...document.images].map(i => [i.naturalWidth, i.width > 200])")
                    assert widths == [[8 * (6 + 2) + 2, True]] * 2
                    paper, ink = page.evaluate("(s => [s.backgroundColor, s.color])(getComputedStyle(document.body))")
                    brightness = [sum(map(int, re.findall(r"\d+", colour))) / 765 for colour in (paper, ink)]
                    assert brightness == sorted(brightness, reverse=not dark)
                    assert abs(brightness[0] - brightness[1]) > 0.7
                    inside = "[...document.querySelectorAll('.box')].map(b => b.scrollWidth > b.clientWidth)"
                    assert any(page.evaluate(inside)) == (width == 375), "tables scroll in their own box"
                    assert 250 < page.locator("svg").first.bounding_box()["width"] < 500
                    shot = np.asarray(Image.open(io.BytesIO(page.screenshot(full_page=True))).convert("L"))
                    assert shot.std() > 10
                    assert wrong == []


def test_a_protocols_outcome_is_no_difference():
    def differing(one: str, two: str, data: str = "Digits") -> list[str]:
        figures = {letter: Figure(**figure("test/a", 1, protocol)) for letter, protocol in (("A", one), ("B", two))}
        return what_differs(figures, {"A": "Digits", "B": data, "C": "not in this row"})

    assert differing("sigma 0.2 of 10, chosen on 5 images", "sigma 1e-01 of 10, chosen on 5 images") == []
    assert differing("sigma 0.2 of 10", "sigma 0.2 of 20") == ["protocols"]
    assert differing("10 splits of 100, std 0.2", "10 splits of 100, std 0.31") == []
    assert differing("1000 samples", "10000 samples", "MNIST") == ["protocols", "data"]
    assert differing("1000 samples", "1000 samples", "MNIST") == ["data"]
    assert differing("1000 samples", "1000 samples", "unknown data") == ["unknown data"]


def test_memorised_is_what_says_so():
    assert is_memorised(Figure(**figure("test/memorized_digits", 0.6)))
    assert not is_memorised(Figure(**figure("test/memorized_digits", 0.5)))
    assert not is_memorised(Figure(**figure("test/fid_digits", 20)))


def test_figures_of_another_checkpoint_are_named(logs, tmp_path):
    shutil.copytree(logs / "vae_fake", tmp_path / "vae_fake")
    path = tmp_path / "vae_fake" / "version_0" / "checkpoints" / "last.ckpt"
    other = path.with_name("best.ckpt")
    path.rename(other)
    run = find_run(str(other))
    assert run.notes == ["The figures of test are those of last.ckpt, the samples those of best.ckpt."]
    assert run.figures["test/parzen"].value == -5
    assert find_run(str(tmp_path / "vae_fake")).checkpoint == other


def test_a_judged_folder_shows_what_it_was_and_its_picture(tmp_path):
    """As `evaluate` leaves it: no checkpoint; beside it stands another, of a model whose run has the same number."""
    run, beside = (tmp_path / "evaluate" / f"version_{number}" for number in (0, 1))
    picture = run / "neighbors" / "test.png"
    data = {"_class_path": "lightning_gen.datamodules.digits.DigitsDataModule", "classes": [1, 2]}
    write_figures(run, "test", figure("test/fid_digits", 3), model="Replay", data=data, pictures=[str(picture)])
    trained = "logs/gan_digits/version_0/checkpoints/last.ckpt"
    write_figures(beside, "test", figure("test/fid_digits", 7), checkpoint=trained)
    picture.parent.mkdir()
    Image.new("L", (6, 6)).save(picture)

    found = find_run(str(run))
    assert (found.model, found.data) == ("Replay", "Digits (classes=[1, 2])")
    assert found.figures["test/fid_digits"].value == 3
    page = tmp_path / "a.html"
    main(["compare", str(run), "--output", str(page)])
    assert base64.b64encode(picture.read_bytes()).decode() in page.read_text()


def test_what_is_missing_is_said(logs, tmp_path, capsys):
    run = tmp_path / "logs" / "version_0"
    write_figures(run, "fit", figure("val/nll", 3))
    bare = tmp_path / "other" / "version_0"
    (bare / "checkpoints").mkdir(parents=True)
    shutil.copy(logs / "gan_fake" / "version_0" / "checkpoints" / "last.ckpt", bare / "checkpoints")
    (run / "study-1.json").write_text(json.dumps(results([])))
    main(["compare", str(run), str(bare), "--output", str(tmp_path / "a.html"), "--num_samples", "2"])
    printed = capsys.readouterr().out
    assert "No checkpoint: no samples." in printed
    assert "No figures.json: no figures." in printed
    assert "study-1.json is of another checkpoint and left out." in printed
    assert "No TensorBoard events" in (tmp_path / "a.html").read_text()


def test_curves_count_epochs(tmp_path):
    with SummaryWriter(str(tmp_path)) as writer:
        for step in range(1, 13):  # Three epochs of four batches, logged as Lightning does.
            writer.add_scalar("train/loss", 10 * step, step - 1)
            writer.add_scalar("epoch", (step - 1) // 4, step - 1)
        writer.add_scalar("once", 1, 0)
    curves = read_curves(tmp_path)
    assert set(curves) == {"train/loss"}
    assert curves["train/loss"][[3, 7, 11]].tolist() == [[1, 40], [2, 80], [3, 120]]
    coarse = read_curves(tmp_path, num_points=3)["train/loss"]
    assert coarse[:, 1].tolist() == [25, 65, 105]


def test_chart_puts_points_where_they_belong():
    drawing = chart("a <b>", [Line("A", 0, [(0, 0), (5, 10)]), Line("B", 9, [(0, 10)])], "epochs")
    bottom = 190
    assert f'points="{LEFT}.0,{bottom}.0 {RIGHT}.0,{TOP}.0" stroke="var(--c0)"' in drawing
    assert f'points="{LEFT}.0,{TOP}.0" stroke="var(--c1)"' in drawing
    assert "a &lt;b&gt;" in drawing
    assert "<b>" not in drawing
    assert round_numbers(-3, 41) == [-10, 0, 10, 20, 30, 40, 50]
    assert round_numbers(7, 7) == [6, 6.5, 7, 7.5, 8]
    assert spread([5, 4, 30], 12) == [16, 4, 30]


def test_published_figures_are_whole():
    for model, papers in read_published().items():
        for paper in papers:
            assert set(paper) - {"plus_minus"} == {"figure", "value", "data", "setting", "protocol", "source"}, model
            assert isinstance(paper["value"], float | int)
            assert paper["protocol"]
            assert paper["source"]


@pytest.mark.parametrize(
    ("run", "message"),
    [
        ("empty", "empty is no run; expected what fit leaves, as logs/<recipe>/version_0"),
        ("missing", "missing is no run"),
        ("two", "two/version_1/checkpoints/last.ckpt cannot be read"),  # The newest.
        ("broken", "figures.json holds no figures as fit and test write them"),
        ("text/last.ckpt", "cannot be read as a checkpoint"),
        ("classifier.ckpt", "classifier.ckpt: The checkpoint names"),
    ],
)
def test_what_is_no_run(run, message, checkpoint, tmp_path, capsys):
    import torch

    (tmp_path / "empty").mkdir()
    for name in ("two/version_0", "two/version_1", "text"):
        (tmp_path / name / "checkpoints").mkdir(parents=True)
        (tmp_path / name / "checkpoints" / "last.ckpt").write_text("text")
    (tmp_path / "text" / "last.ckpt").write_text("text")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "figures.json").write_text('{"fit": {"figures": [{"name": "a"}]}}')
    content = torch.load(checkpoint, weights_only=True)
    content["hyper_parameters"] = {}
    content["class_paths"]["hyper_parameters"] = "lightning_gen.models.digit_classifier.DigitClassifier"
    torch.save(content, tmp_path / "classifier.ckpt")
    command = ["compare", str(checkpoint), str(tmp_path / run), "--output", str(tmp_path / "a.html")]
    before = sorted(tmp_path.iterdir())
    error = one_line_error(capsys, *command)
    assert message in error
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--output", "a.png"], "expected .html"),
        (["--output", "a.html", "--num_samples", "0"], "num_samples is 0"),
        (["--output", "a.html", "--sed", "0"], "did you mean --seed?"),
    ],
)
def test_bad_options(options, message, checkpoint, capsys):
    assert message in one_line_error(capsys, "compare", str(checkpoint), *options)


def test_no_run_at_all(capsys):
    assert "required: runs" in one_line_error(capsys, "compare", "--output", "a.html")
