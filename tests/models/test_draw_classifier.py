"""The classifier that looks through a window."""

import pytest
import torch
from torch import nn

from lightning_gen.datamodules import ClutteredDigitsDataModule
from lightning_gen.errors import DataError
from lightning_gen.models import DRAWClassifier
from tests.digits import quiet_trainer


def test_glimpses_by_the_formula() -> None:
    """Raw image alone, window by the state before, label by the last one."""
    torch.manual_seed(0)
    model = DRAWClassifier((1, 9, 12), num_classes=3, num_glimpses=2, read_size=4, hidden_size=5).double()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.4)
    images = torch.rand(2, 1, 9, 12, dtype=torch.float64)
    hidden, cell = model.hidden.expand(2, -1), torch.zeros(2, 5, dtype=torch.float64)
    for _ in range(2):
        window = model.reader(hidden)
        filters_y, filters_x = model.reader.filters(window)
        seen = torch.einsum("nih,nchw,njw->ncij", filters_y, images, filters_x)
        hidden, cell = model.encoder(window.log_intensity.exp()[:, None] * seen.flatten(1), (hidden, cell))
    torch.testing.assert_close(model(images), hidden @ model.output.weight.T + model.output.bias)
    assert model.boxes(images).shape == (2, 2, 5)


def test_a_window_of_one_pixel_and_wrong_labels_are_refused() -> None:
    with pytest.raises(DataError, match="1 x 1 filters"):
        DRAWClassifier(read_size=1)
    model, images = DRAWClassifier((1, 9, 12), read_size=4), torch.zeros(2, 1, 9, 12)
    with pytest.raises(DataError, match="needs 'label' too"):
        model.as_batch(images)
    with pytest.raises(DataError, match=r"got a label in 3 to 10; expected integers .* from 0 to 9"):
        model.as_batch((images, torch.tensor([3, 10])))


def test_finds_digits_better_than_chance() -> None:
    """Two classes on 40 x 40 pixels among 2 fragments, 4 glimpses; chance is one half."""
    torch.manual_seed(0)
    data = ClutteredDigitsDataModule(image_size=40, num_fragments=2, classes=[0, 1])
    model = DRAWClassifier((1, 40, 40), num_glimpses=4, read_size=8, hidden_size=64, lr=3e-3)
    trainer = quiet_trainer(max_epochs=12, limit_val_batches=0, gradient_clip_val=10.0)
    trainer.fit(model, datamodule=data)
    (scores,) = trainer.test(model, datamodule=data, verbose=False)
    assert scores["test/accuracy"] > 0.9
