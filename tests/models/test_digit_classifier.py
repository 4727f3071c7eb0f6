from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lightning_gen.datamodules import DigitsDataModule
from lightning_gen.errors import DataError
from lightning_gen.models import DigitClassifier
from tests.digits import quiet_trainer


@pytest.fixture
def digits() -> Tensor:
    images = torch.zeros(2, 1, 28, 28)
    images[:, :, 8:20, 8:20] = torch.rand(2, 1, 12, 12)
    return images


def draws(monkeypatch: pytest.MonkeyPatch, value: float) -> None:
    """Let every uniform draw from [0, 1) give one value."""
    monkeypatch.setattr(torch, "rand", lambda *shape, **_: torch.full(shape, value))


def test_images_shift_by_the_given_pixels(digits: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    model = DigitClassifier(distortion=0.0, shift=2.0)
    draws(monkeypatch, 1.0)
    torch.testing.assert_close(model.distort(digits), digits.roll((-2, -2), (2, 3)), rtol=0, atol=1e-5)
    draws(monkeypatch, 0.0)
    torch.testing.assert_close(model.distort(digits), digits.roll((2, 2), (2, 3)), rtol=0, atol=1e-5)


def test_images_are_distorted_about_their_centre(digits: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    model = DigitClassifier(distortion=1.0, shift=0.0)
    draws(monkeypatch, 0.5)  # No distortion.
    torch.testing.assert_close(model.distort(digits), digits, rtol=0, atol=1e-5)
    draws(monkeypatch, 1.0)  # The map is ((2, 1), (1, 2)): the diagonal shrinks to a third, the other one stays.
    warped = model.distort(torch.ones(1, 1, 28, 28))[0, 0]
    torch.testing.assert_close(warped, warped.T)
    corner, third = 0, 8  # Of the diagonal's 14 pixels to the centre, those nearer than 14 / 3 show the image.
    assert warped[corner, corner] == 0
    assert warped[third, third] == 0
    assert warped[10, 10] == 1
    assert warped[1, 26] == 1


def test_each_image_is_distorted_in_its_own_way(digits: Tensor) -> None:
    same = digits[:1].repeat(5, 1, 1, 1)
    augmented = DigitClassifier().distort(same)
    assert augmented.shape == same.shape
    assert len(augmented.unique(dim=0)) == 5


def test_a_third_is_blurred_and_a_third_binarised(digits: Tensor) -> None:
    torch.manual_seed(0)
    images = digits[:1].repeat(3000, 1, 1, 1)
    redrawn = DigitClassifier().redraw(images)
    mean = torch.nn.functional.avg_pool2d(digits[:1], 3, stride=1, padding=1)
    kept, blurred = ((redrawn == kind).flatten(1).all(1) for kind in (digits[:1], mean))
    binary = redrawn[~kept & ~blurred]
    for number in (kept.sum(), blurred.sum(), len(binary)):
        assert 900 < number < 1100
    assert set(binary.unique().tolist()) == {0.0, 1.0}
    torch.testing.assert_close(binary.mean(0), digits[0], rtol=0, atol=0.08)  # Five standard errors.


class Table(nn.Module):
    """Logits by the first pixel."""

    rows = torch.tensor([[4.0] + [0.0] * 9, [0.0, 9.0] + [0.0] * 8])

    def forward(self, images: Tensor) -> Tensor:
        return self.rows[images[:, 0, 0, 0].long()]


def test_scores_are_means_over_images_of_batches_of_any_size() -> None:
    model = DigitClassifier()
    model.network = Table()
    images = torch.tensor([0.0, 1.0, 1.0, 0.0]).view(-1, 1, 1, 1).expand(-1, 1, 28, 28)
    labels = torch.tensor([0, 1, 2, 3])
    batches = DataLoader([(images[:3], labels[:3]), (images[3:], labels[3:])], batch_size=None)
    # p = e^4 / (e^4 + 9) = 0.858 for a 0, e^9 / (e^9 + 9) = 0.999 for a 1.
    loss = ((torch.tensor(4.0).exp() + 9).log() * 2 - 4 + (torch.tensor(9.0).exp() + 9).log() * 2 - 9) / 4
    for stage, run in (("val", quiet_trainer().validate), ("test", quiet_trainer().test)):
        (scores,) = run(model, batches, verbose=False)
        assert scores[f"{stage}/accuracy"] == pytest.approx(0.5)
        assert scores[f"{stage}/confident"] == pytest.approx(0.5)
        assert scores[f"{stage}/loss"] == pytest.approx(loss.item())


def test_non_digits_are_means_of_ten_digits_and_noise() -> None:
    images = torch.rand(25, 1, 28, 28)
    others = DigitClassifier().non_digits(images)
    assert others.shape == (4, 1, 28, 28)  # Two groups of ten, five images over.
    torch.testing.assert_close(others[0], sum(images[:10]) / 10)
    torch.testing.assert_close(others[1], sum(images[10:20]) / 10)
    assert others[2:].min() >= 0
    assert others[2:].max() <= 1
    assert (others[2] - others[3]).abs().max() > 0.01
    assert len(DigitClassifier().non_digits(images[:9])) == 0


def test_training_minimises_the_cross_entropy_from_the_labels_and_on_non_digits_from_all_alike() -> None:
    model = DigitClassifier().eval()
    images, labels = torch.rand(10, 1, 28, 28), torch.arange(10)
    torch.manual_seed(0)
    right = model(model.redraw(model.distort(images))).log_softmax(1)[range(10), labels]
    alike = model(model.non_digits(images)).log_softmax(1).mean(1)  # Of one mean and one noise.
    torch.manual_seed(0)
    model.log = lambda *_: None  # type: ignore[method-assign, assignment]
    loss = model.training_step((images, labels), 0)
    torch.testing.assert_close(loss, -(right.sum() + alike.sum()) / 12)


def test_it_learns_and_a_checkpoint_keeps_it(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = DigitClassifier()
    trainer = quiet_trainer(max_epochs=2)
    trainer.fit(model, datamodule=DigitsDataModule(batch_size=50))
    assert trainer.callback_metrics["val/accuracy"] > 0.9  # The nearest class mean gives 0.8.
    assert trainer.lr_scheduler_configs[0].scheduler.get_last_lr()[0] < 1e-6  # The cycle has ended, steps not epochs.

    trainer.save_checkpoint(tmp_path / "last.ckpt")
    checkpoint = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert checkpoint["class_paths"]["hyper_parameters"] == "lightning_gen.models.digit_classifier.DigitClassifier"
    loaded = DigitClassifier.load_from_checkpoint(tmp_path / "last.ckpt", weights_only=True).eval()
    images = torch.rand(4, 1, 28, 28)
    assert torch.equal(loaded(images), model.eval()(images))
    assert torch.equal(loaded.predict_step(images, 0), loaded(images).argmax(1))


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (torch.zeros(2, 1, 28, 28), r"holds \['image'\]; .* needs 'label'"),
        (
            (torch.zeros(2, 1, 28, 28), torch.tensor([3, 10])),
            r"got a label in 3 to 10; expected integers of shape \(N,\) from 0 to 9",
        ),
        ((torch.zeros(2, 1, 28, 28), torch.tensor([-1, 3])), "got a label in -1 to 3"),
        ((torch.zeros(2, 1, 32, 32), torch.tensor([1, 3])), r"shape \(1, 32, 32\)"),
    ],
)
def test_wrong_data_are_named(batch: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        DigitClassifier().training_step(batch, 0)


def test_another_image_shape_is_refused() -> None:
    with pytest.raises(DataError, match=r"image_shape is \(3, 32, 32\); .* takes \(1, 28, 28\)"):
        DigitClassifier(image_shape=(3, 32, 32))
