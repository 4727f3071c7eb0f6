"""The contract of all models: batches, conditions, modes, checkpoints, streams of noise."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_gen.datamodules import DigitsDataModule
from lightning_gen.errors import ConditionError, DataError
from lightning_gen.models import (
    ACGAN,
    CGAN,
    DCGAN,
    DGNAM,
    DRAW,
    GAN,
    GMMN,
    LAPGAN,
    NADE,
    PPGN,
    VAE,
    BernoulliMixture,
    EoNADE,
    GenerativeModule,
    ImprovedGAN,
    MultiScalePixelRNN,
    PixelRNN,
    as_batch,
)
from tests.digits import quiet_trainer, train_on_digits

STEERED: dict[str, Any] = {
    "image_shape": (1, 28, 28),
    "encoder": "lightning_gen.nn.DigitFeatures",
    "code_layer": "features",
    "comparator_layer": "network.body.11",
    "generator_units": (16,),
    "generator_channels": ((4,), (4,)),
    "discriminator_layers": ((4, 5, 2),),
    "discriminator_units": (4, 4),
}
"""Small networks for DGNAM and PPGN."""


class Conditional(GenerativeModule):
    """Images of one grey value, given by the label; dropout to see the mode."""

    condition_keys = ("label",)

    def __init__(self, image_shape: tuple[int, ...] = (1, 4, 4)) -> None:
        super().__init__()
        self.image_shape = image_shape
        self.dropout = nn.Dropout(0.5)

    def _sample(
        self, num_samples: int, condition: Mapping[str, Tensor] | None, generator: torch.Generator | None
    ) -> Tensor:
        assert condition is not None
        grey = condition["label"].float().view(-1, 1, 1, 1) / 10
        return self.dropout(grey.expand(num_samples, *self.image_shape))


def test_batches_of_other_projects_get_names() -> None:
    images, labels = torch.zeros(2, 1, 4, 4), torch.tensor([1, 2])
    for batch in ((images, labels), [images, labels], {"image": images, "label": labels}):
        assert as_batch(batch)["label"] is labels
    for batch in (images, (images,), [images]):
        assert list(as_batch(batch)) == ["image"]
    assert list(as_batch((torch.zeros(2, 1, 3, 4, 4), labels))) == ["video", "label"]
    with pytest.raises(DataError, match="type str"):
        as_batch("images")


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (torch.zeros(2, 1, 5, 4), r"\(1, 5, 4\).*image_shape=\(1, 4, 4\)"),
        (torch.full((2, 1, 4, 4), 1.5), r"\[1.5, 1.5\].*\[0, 1\]"),
        (torch.full((2, 1, 4, 4), -0.1), r"expected floats in \[0, 1\]"),
        (torch.full((2, 1, 4, 4), torch.nan), r"expected floats in \[0, 1\]"),
        ({"label": torch.zeros(2)}, "needs 'image'"),
    ],
)
def test_wrong_data_are_named(batch: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Conditional().as_batch(batch)


def test_each_mode_checks_its_first_batch_only() -> None:
    model = Conditional()
    model.as_batch(torch.zeros(1, 1, 4, 4))
    model.as_batch(torch.full((1, 1, 4, 4), 2.0))  # No more host synchronisation after the first.
    model.eval()
    with pytest.raises(DataError):
        model.as_batch(torch.full((1, 1, 4, 4), 2.0))


def test_conditions_are_checked() -> None:
    model = Conditional()
    images = model.sample(2, {"label": torch.tensor([3, 7])})
    torch.testing.assert_close(images[:, 0, 0, 0], torch.tensor([0.3, 0.7]))
    with pytest.raises(ConditionError, match=r"does not know the condition \['lable'\]; it takes label"):
        model.sample(1, {"lable": torch.tensor([1])})
    with pytest.raises(ConditionError, match="needs a condition with label"):
        model.sample(1)
    for label in (5, torch.tensor(5)):
        with pytest.raises(ConditionError, match=r"'label' is .*; expected 2 rows, one for each sample"):
            Conditional().sample(2, {"label": label})
    with pytest.raises(ConditionError, match="has 3 rows for 2 samples"):
        model.sample(2, {"label": torch.zeros(3)})
    with pytest.raises(ConditionError, match="it takes no condition"):
        VAE().sample(1, {"label": torch.tensor([1])})
    with pytest.raises(ConditionError, match="at least 1"):
        VAE().sample(0)


def test_sampling_restores_each_modules_mode() -> None:
    model = Conditional().train()
    frozen = nn.Linear(1, 1).eval()
    model.add_module("frozen", frozen)
    model.sample(1, {"label": torch.tensor([1])})
    assert model.dropout.training
    assert not frozen.training


@pytest.mark.parametrize(
    ("model_class", "size"),
    [
        (VAE, {"hidden_size": 20}),
        (GAN, {"hidden_size": 20}),
        (ACGAN, {"image_shape": (1, 28, 28), "generator_channels": (4, 2), "discriminator_channels": (2, 3)}),
        (CGAN, {"hidden_sizes": (20, 20, 20)}),
        (DCGAN, {"image_shape": (1, 28, 28), "base_channels": 4}),
        (ImprovedGAN, {"reference_batch": 10, "minibatch_kernels": 5, "historical_averaging": 0.1}),
        (GMMN, {"hidden_sizes": (20,)}),
        (DGNAM, {**STEERED, "num_steps": 2, "step_size": 0.1}),
        (PPGN, {**STEERED, "variant": "h", "denoiser_units": (8,), "num_steps": 2}),
        (PPGN, {**STEERED, "variant": "x", "denoiser_channels": 2, "num_steps": 2}),
        (LAPGAN, {"image_shape": (1, 28, 28), "channels": (2, 2), "class_conditional": True}),
        (NADE, {"hidden_size": 20}),
        (DRAW, {"num_glimpses": 2, "hidden_size": 20, "latent_dim": 3}),
        (EoNADE, {"hidden_size": 20}),
        (BernoulliMixture, {"num_components": 20}),
        (PixelRNN, {"variant": "pixelcnn", "num_layers": 1, "hidden_size": 4}),
        (PixelRNN, {"variant": "row_lstm", "num_layers": 1, "hidden_size": 4}),
        (PixelRNN, {"num_layers": 1, "hidden_size": 4}),
        (MultiScalePixelRNN, {"variant": "pixelcnn", "num_layers": 1, "hidden_size": 4}),
    ],
)
def test_samples_after_loading_equal_samples_before(
    model_class: type[GenerativeModule], size: dict[str, Any], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    model = model_class(**size)
    trainer = quiet_trainer(max_epochs=1, limit_train_batches=2, limit_val_batches=0)
    trainer.fit(model, datamodule=DigitsDataModule(binarization="dynamic"))
    path = tmp_path / "model.ckpt"
    trainer.save_checkpoint(path)
    checkpoint = torch.load(path, weights_only=True)
    assert checkpoint["class_paths"]["hyper_parameters"] == f"{model_class.__module__}.{model_class.__name__}"
    loaded = model_class.load_from_checkpoint(path)
    assert loaded.hparams == model.hparams
    before, after = (m.sample(5, generator=torch.Generator().manual_seed(1)) for m in (model, loaded))
    assert before.shape == (5, 1, 28, 28)
    assert before.min() >= 0
    assert before.max() <= 1
    torch.testing.assert_close(after, before, rtol=0, atol=0)


def test_foreign_hyper_parameters_do_not_enter_a_checkpoint() -> None:
    model = VAE(latent_dim=3)
    model.hparams.update(_instantiator="somewhere", num_classes=10)
    checkpoint: dict[str, Any] = {}
    model.on_save_checkpoint(checkpoint)
    assert checkpoint["hyper_parameters"] == VAE(latent_dim=3).hparams
    assert checkpoint["class_paths"] == {"hyper_parameters": "lightning_gen.models.vae.VAE"}


def test_predict_samples_as_many_as_the_batch() -> None:
    images = quiet_trainer().predict(VAE(hidden_size=20), torch.utils.data.DataLoader(torch.zeros(5, 1, 28, 28), 3))
    assert [len(batch) for batch in images] == [3, 2]


def test_likelihood_is_the_mean_over_all_images_with_its_error() -> None:
    class Sum(VAE):
        likelihood = "exact"

        def _score(self, batch: Mapping[str, Tensor]) -> Tensor:
            return -batch["image"].flatten(1).sum(-1)

    images = (torch.rand(7, 1, 28, 28) > 0.5).float()
    sums = images.flatten(1).sum(-1).double()
    (scores,) = quiet_trainer().validate(Sum(), torch.utils.data.DataLoader(images, 3), verbose=False)  # 3, 3 and 1.
    assert scores["val/nll"] == pytest.approx(sums.mean().item())
    assert scores["val/nll_stderr"] == pytest.approx((sums.var() / 7).sqrt().item())
    assert scores["val/bits_per_dim"] == pytest.approx(sums.mean().item() / 784 / torch.tensor(2.0).log().item())


@pytest.mark.parametrize("already", [False, True])
def test_initialization_leaves_trainings_stream_alone(already: bool) -> None:
    """The GAN reads the data once before training; the noise that follows is the same as if it had not."""

    class FirstNoise(GAN):
        def training_step(self, batch: object, batch_idx: int) -> None:
            noise.append(self.sample_latent(3))

    noise: list[Tensor] = []
    torch.manual_seed(3)
    model = FirstNoise(hidden_size=20)
    model.initialized.fill_(already)
    train_on_digits(model, epochs=1, binarization="none", limit_train_batches=1)
    torch.manual_seed(3)
    GAN(hidden_size=20)
    torch.empty((), dtype=torch.int64).random_()  # The loader's base seed, then the shuffle's.
    torch.empty((), dtype=torch.int64).random_()
    torch.testing.assert_close(noise[0], model.sample_latent(3), rtol=0, atol=0)
