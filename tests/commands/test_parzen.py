"""The Parzen row of real images, on the embedded digits and, where it is, on MNIST."""

import os
import re
from pathlib import Path
from typing import Any

import pytest

from lightning_gen.commands import parzen as module
from lightning_gen.commands.parzen import parzen
from lightning_gen.datamodules import DigitsDataModule
from lightning_gen.errors import DataError
from lightning_gen.functional import parzen_log_likelihood

MNIST = Path(os.environ.get("LIGHTNING_GEN_DATA", "data"))


@pytest.fixture
def digits(monkeypatch: pytest.MonkeyPatch) -> DigitsDataModule:
    """The 5,000 digits in the place of MNIST."""
    data = DigitsDataModule()
    monkeypatch.setattr(module, "MNISTDataModule", lambda **_: data)
    return data


def test_the_line(digits: DigitsDataModule, capsys: pytest.CaptureFixture[str]) -> None:
    parzen(num_samples=300, sigmas="log")
    line = capsys.readouterr().out
    datasets: dict[Any, Any] = digits.datasets
    train, val, test = (datasets[split].__getitems__(range(500))["image"] for split in ("train", "val", "test"))
    sigma = max(
        (0.1668, 0.2154, 0.2783, 0.3594), key=lambda s: parzen_log_likelihood(val, train[:300], s).mean().item()
    )
    expected = parzen_log_likelihood(test, train[:300], sigma)
    number = re.match(
        rf"(\S+) ± (\S+) nats: 300 training images as samples, 500 test images, sigma {sigma:.3g} of 10 in \[0.1, 1\], "
        r"chosen on 500 images \(\d+\.\d s\)\n",
        line,
    )
    assert number, line
    assert float(number[1]) == pytest.approx(expected.mean().item(), abs=0.2)  # The widths above are rounded.
    assert float(number[2]) == pytest.approx(expected.std(correction=0).item() / 500**0.5, abs=0.05)


def test_centroids_beat_the_images_they_are_means_of(digits: DigitsDataModule, capsys: Any) -> None:
    parzen(num_samples=300, sigmas="log", centroids=[300], num_iterations=3)
    images, means = capsys.readouterr().out.splitlines()
    assert "nats: 300 centroids of 4,000 training images after 3 iterations as samples, 500 test images" in means
    assert float(means.split()[0]) > float(images.split()[0]) + 10


def test_more_centroids_than_images(digits: DigitsDataModule) -> None:
    with pytest.raises(DataError, match=r"centroids is \[10, 4001\]; expected numbers from 1 to 4000"):
        parzen(num_samples=300, centroids=[10, 4001])


@pytest.mark.parametrize("number", [0, 4001])
def test_more_samples_than_there_are(digits: DigitsDataModule, number: int) -> None:
    with pytest.raises(DataError, match=f"num_samples is {number}; there are 1 to 4000 training images"):
        parzen(num_samples=number)


@pytest.mark.slow
@pytest.mark.skipif(not (MNIST / "MNIST" / "raw").exists(), reason="needs MNIST")
def test_real_images_score_243_nats(capsys: pytest.CaptureFixture[str]) -> None:
    """Theis et al. 2016, table 1; the coarse grid costs a nat and a half more."""
    parzen()
    assert capsys.readouterr().out.startswith(
        "242.70 ± 1.83 nats: 10,000 training images as samples, 10,000 test images"
    )
    parzen(sigmas="log")
    assert capsys.readouterr().out.startswith("241.19 ± 2.13 nats")
