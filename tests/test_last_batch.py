"""An epoch that would end with a single image is refused before it begins, by the models that cannot learn from one."""

import pytest
import torch
from torch.utils.data import DataLoader, Subset

from lightning_gen import models
from lightning_gen._lightning import Trainer
from lightning_gen.errors import DataError
from lightning_gen.models import DCGAN
from tests.tiny import TINY, tiny

QUIET = {"accelerator": "cpu", "max_epochs": 1, "logger": False, "enable_checkpointing": False}
QUIET |= {"enable_progress_bar": False, "enable_model_summary": False, "limit_val_batches": 0}
ROWS = {"ImprovedGAN": 401}  # It needs labelled images; the others have a batch of 40 and one more.


class Rows(Subset):
    """The first rows of a data set that gives whole batches."""

    def __getitems__(self, indices):
        return self.dataset.__getitems__(indices)


def shortened(name, **settings):
    """A tiny model, and its data with a single row in the last batch."""
    torch.manual_seed(0)
    model, data = tiny(name)
    data.prepare_data()
    data.setup()
    data.datasets["train"] = Rows(data.datasets["train"], range(rows := ROWS.get(name, 41)))
    data.batch_size = rows - 1
    for key, value in settings.items():
        setattr(data, key, value)
    return model, data


KINDS = [
    name if getattr(models, name).smallest_batch > 1 else pytest.param(name, marks=pytest.mark.slow) for name in TINY
]


@pytest.mark.parametrize("name", KINDS)
def test_a_single_image_is_trained_on_or_refused_before_training(name):
    model, data = shortened(name)
    trainer = Trainer(**QUIET)
    if model.smallest_batch == 1:
        trainer.fit(model, datamodule=data)
        return
    with pytest.raises(DataError, match=r"(leave a single one|A batch of one).*give data\.drop_last=true"):
        trainer.fit(model, datamodule=data)
    assert trainer.global_step == 0
    model, data = shortened(name, drop_last=True)
    trainer = Trainer(**QUIET)
    trainer.fit(model, datamodule=data)
    assert trainer.num_training_batches == 1


def test_an_epoch_that_does_not_come_so_far_is_not_refused():
    model, data = shortened("DCGAN")
    Trainer(**QUIET, limit_train_batches=1).fit(model, datamodule=data)


def test_loaders_of_other_people_are_looked_at_too():
    loader = DataLoader(list(torch.rand(5, 1, 16, 16)), batch_size=2)
    model = DCGAN(image_shape=(1, 16, 16), base_channels=4)
    trainer = Trainer(**QUIET)
    with pytest.raises(DataError, match="5 training images in batches of 2 leave a single one"):
        trainer.fit(model, loader)
    assert trainer.global_step == 0
