"""People judge images: the page, clicked through in a browser, and the answers that it saves."""

import base64
import io
import json
import re
import time
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lightning_gen.cli import main
from lightning_gen.commands.study import FORMAT, fingerprint, is_real, read_answers, summarize
from lightning_gen.datamodules import FakeDataModule
from tests.browser import chromium, opened
from tests.conftest import MODEL, QUIET
from tests.test_cli import one_line_error

REAL = ["--real", "FakeDataModule", "--real.image_shape", "[1,8,6]", "--real.num_samples", "32"]


def make(checkpoint: Path, output: Path, *options: str) -> dict[str, Any]:
    """What a page of `study` holds."""
    main(["study", str(checkpoint), *REAL, "--output", str(output), *options])
    text = re.search(r'<script type="application/json" id="study">(.*?)</script>', output.read_text(), re.S)
    assert text is not None
    return json.loads(text[1])


def pixels(source: str) -> bytes:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2])))).tobytes()


def answer(name: str, said: str, milliseconds: int = 50, shown: float = 50) -> dict[str, Any]:
    return {"id": name, "answer": said, "milliseconds": milliseconds, "shown": shown, "seconds": 1}


def results(answers: list[dict[str, Any]], session: str = "a", checkpoint: str = "0" * 16) -> dict[str, Any]:
    about = {"format": FORMAT, "run": "vae_fake/version_0", "checkpoint": checkpoint, "real": "Fake, test", "seed": 0}
    return {**about, "session": session, "started": "2026-01-01", "answers": answers}


NAMES = {kind: [f"{n:012x}" for n in range(100) if is_real(f"{n:012x}") == kind] for kind in (True, False)}


def test_page_holds_each_image_once_at_balanced_times(checkpoint, tmp_path):
    content = make(checkpoint, tmp_path / "a.html", "--num_images", "12", "--milliseconds", "[50,100,400]")
    trials = content["trials"]
    counts = Counter((trial["milliseconds"], is_real(trial["id"])) for trial in trials)
    assert counts == {(ms, kind): 4 for ms in (50, 100, 400) for kind in (True, False)}
    data = FakeDataModule((1, 8, 6), num_samples=32)
    data.setup()
    test_images: Any = data.datasets["test"]
    known = {row.mul(255).round().byte().numpy().tobytes() for row in test_images.__getitems__(range(32))["image"]}
    shown = {pixels(trial["image"]) for trial in trials if is_real(trial["id"])}
    examples = {pixels(source) for source in content["examples"]}
    assert shown | examples <= known
    assert (len(shown), len(examples), len(shown & examples)) == (12, 8, 0)
    assert not {pixels(trial["image"]) for trial in trials if not is_real(trial["id"])} & known
    assert content["about"]["checkpoint"] == fingerprint(checkpoint)


def test_order_comes_from_the_seed_and_gives_nothing_away(checkpoint, tmp_path):
    options = ["--num_images", "12"]
    content = make(checkpoint, tmp_path / "a.html", *options)
    assert content == make(checkpoint, tmp_path / "b.html", *options)
    other = make(checkpoint, tmp_path / "c.html", *options, "--seed", "1")
    kinds, others = ([is_real(trial["id"]) for trial in page["trials"]] for page in (content, other))
    assert kinds != others
    assert sum(one != next_ for one, next_ in pairwise(kinds)) > 4, "kinds come in a block"
    assert set().union(*content["trials"]) == {"id", "milliseconds", "image"}
    assert len({trial["id"] for trial in content["trials"]}) == 24
    assert all(re.fullmatch("[0-9a-f]{12}", trial["id"]) for trial in content["trials"])


def test_clicked_through_in_a_browser(checkpoint, tmp_path, capsys):
    path = tmp_path / "study.html"
    trials = make(checkpoint, path, "--num_images", "3", "--milliseconds", "[300,600]")["trials"]
    said = ["real", "generated", "real", "real", "generated", "real"]
    with chromium() as browser, opened(browser, path, width=375) as (page, wrong):
        assert page.evaluate("document.documentElement.scrollWidth") == 375
        assert page.locator("#examples img").count() == 8
        page.click("#begin")
        for index, (trial, word) in enumerate(zip(trials, said, strict=True)):
            assert page.inner_text("#progress") == f"{index + 1} of 6"
            page.wait_for_function("!document.querySelector('#picture').classList.contains('away')")
            start = time.monotonic()
            assert page.is_disabled("#real"), "an answer while the image is shown"
            page.keyboard.press("r")  # Is not taken yet.
            assert page.get_attribute("#picture", "src") == trial["image"]
            page.wait_for_selector("#real:not([disabled])")
            assert time.monotonic() - start > 0.1
            assert "away" in page.get_attribute("#picture", "class")
            assert not page.is_visible("#picture")
            if index % 2:
                page.keyboard.press({"real": "ArrowLeft", "generated": "g"}[word])
            else:
                page.click(f"#{word}")
        assert page.inner_text("#count") == "6 of 6 images judged."
        with page.expect_download() as download:
            page.click("#save")
        assert re.fullmatch(r"study-[0-9a-z]+\.json", download.value.suggested_filename)
        download.value.save_as(tmp_path / "study-1.json")
        assert wrong == []
    content = read_answers(tmp_path / "study-1.json")
    assert [given["answer"] for given in content["answers"]] == said
    assert [given["id"] for given in content["answers"]] == [trial["id"] for trial in trials]
    assert [given["milliseconds"] for given in content["answers"]] == [trial["milliseconds"] for trial in trials]
    for given in content["answers"]:
        assert given["milliseconds"] - 9 < given["shown"] < given["milliseconds"] + 300

    for given in content["answers"]:  # A busy machine may have shown some for too long.
        given["shown"] = given["milliseconds"]
    (tmp_path / "study-1.json").write_text(json.dumps(content))
    capsys.readouterr()
    compare = ["compare", str(checkpoint), "--output", str(tmp_path / "a.html"), "--num_samples", "1"]
    main([*compare, "--study", str(tmp_path / "study-1.json")])
    shown = capsys.readouterr().out
    judged = {(j.milliseconds, j.real): j for j in summarize([content]).judged}
    for milliseconds in (300, 600):
        expected = [
            word == "real"
            for trial, word in zip(trials, said, strict=True)
            if trial["milliseconds"] == milliseconds and not is_real(trial["id"])
        ]
        assert judged[milliseconds, False].share == pytest.approx(sum(expected) / len(expected))
        (line,) = [line for line in shown.splitlines() if f"{milliseconds} ms" in line]
        assert f"{judged[milliseconds, False].share:.2f} ± {judged[milliseconds, False].standard_error:.2f}" in line
        assert f"{judged[milliseconds, True].share:.2f} ± {judged[milliseconds, True].standard_error:.2f}" in line


def test_a_sitting_can_be_cut_short(checkpoint, tmp_path):
    make(checkpoint, tmp_path / "study.html", "--num_images", "2", "--milliseconds", "[10]")
    with chromium() as browser, opened(browser, tmp_path / "study.html") as (page, _):
        page.click("#begin")
        page.wait_for_selector("#generated:not([disabled])")
        page.click("#generated")
        page.click("#stop")
        page.wait_for_timeout(700)  # The next image must not come back after the end.
        assert page.inner_text("#count") == "1 of 4 images judged."
        assert not page.is_visible("#trial")
        with page.expect_download() as download:
            page.click("#save")
        download.value.save_as(tmp_path / "one.json")
    assert len(read_answers(tmp_path / "one.json")["answers"]) == 1


def test_shares_by_time_and_kind_with_their_errors():
    real, generated = NAMES[True], NAMES[False]
    first = results([answer(real[0], "real"), answer(real[1], "real"), answer(generated[0], "real", 100, 100)])
    late = [answer(real[2], "generated", 100, 400), answer(real[3], "generated", 1000, 990)]
    second = results([answer(generated[0], "generated", 100, 120), *late], session="b")
    found = summarize([first, second, first])  # A file that was saved twice counts once.
    shares = {(j.milliseconds, j.real): (j.number, j.share) for j in found.judged}
    assert shares == {(50, True): (2, 1.0), (100, False): (2, 0.5), (1000, True): (1, 0.0)}
    assert (found.people, found.late) == (2, 1)
    errors = {(j.milliseconds, j.real): j.standard_error for j in found.judged}
    assert errors[100, False] == pytest.approx((0.25 / 2) ** 0.5)
    assert errors[50, True] == pytest.approx((0.75 * 0.25 / 2) ** 0.5)  # 3 of 4, with one answer of each sort added.


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--num_images", "25"], "32 test images and 33 are needed"),
        (["--num_images", "0"], "num_images is 0"),
        (["--milliseconds", "[]"], "expected times above 0"),
        (["--real.image_shape", "[1,8,8]"], "images of (1, 8, 8), and the model draws (1, 8, 6)"),
        (["--output", "a.png"], "expected .html"),
    ],
)
def test_bad_options(options, message, checkpoint, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = ["study", str(checkpoint), *REAL, "--output", "a.html", "--num_images", "4"]
    assert message in one_line_error(capsys, *command, *options)
    assert not list(tmp_path.iterdir())


def test_a_model_that_draws_no_images_is_refused(tmp_path, capsys):
    data = ["--data", "FakeDataModule", "--data.image_shape", "[1,1,9]"]
    main(["fit", *MODEL, *data, *QUIET, "--trainer.max_epochs", "1", "--trainer.default_root_dir", str(tmp_path)])
    capsys.readouterr()
    error = one_line_error(capsys, "study", str(tmp_path / "vae_fake"), *REAL, "--output", str(tmp_path / "a.html"))
    assert "VAE with image_shape=(1, 1, 9) draws no images" in error


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "JSONDecodeError"),
        ("[]", "TypeError"),
        ('{"format": "other"}', "another format"),
        (json.dumps(results([answer("0", "perhaps")])), "perhaps"),
        (json.dumps(results([{"answer": "real"}])), "milliseconds"),
    ],
)
def test_files_that_are_no_answers(content, reason, checkpoint, tmp_path, capsys):
    (tmp_path / "a.json").write_text(content)
    command = ["compare", str(checkpoint), "--output", str(tmp_path / "a.html"), "--study", str(tmp_path / "a.json")]
    error = one_line_error(capsys, *command)
    assert "no answers as a page of lightning-gen study saves them" in error
    assert reason in error
    assert not (tmp_path / "a.html").exists()


def test_answers_on_another_checkpoint_are_refused(checkpoint, tmp_path, capsys):
    (tmp_path / "a.json").write_text(json.dumps(results([])))
    command = ["compare", str(checkpoint), "--output", str(tmp_path / "a.html"), "--study", str(tmp_path)]
    assert "answers on another checkpoint, of vae_fake/version_0" in one_line_error(capsys, *command)
    (tmp_path / "a.json").unlink()
    assert "holds no *.json" in one_line_error(capsys, *command)
    command[-1] = str(tmp_path / "b.json")
    assert "cannot be read" in one_line_error(capsys, *command)
