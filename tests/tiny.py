"""Every model with its data in a size that trains in a second or two: the recipes on digits, made smaller."""

import inspect
import itertools
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import torch
import yaml
from torch.nn import functional as F
from torch.utils.data import DataLoader, IterableDataset

from lightning_gen import datamodules, models
from lightning_gen._lightning import LightningDataModule
from lightning_gen.models import ImageModule
from lightning_gen.recipes import resolve_recipe

SMALL = {"base_channels": 4, "discriminator_channels": 4}
BLACK_AND_WHITE = ((0, 0, 0), (255, 255, 255))

TINY: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {  # model: a recipe, and what is other than in it
    "ACGAN": ("acgan/digits", {"generator_channels": (8, 4), "discriminator_channels": (2, 4, 4)}, {}),
    "AttributeClassifier": ("attribute_classifier/digits", {"base_channels": 4, "num_features": 16}, {}),
    "BernoulliMixture": ("bernoulli_mixture/digits", {"num_components": 10}, {"batch_size": 100}),
    "CGAN": ("cgan/digits", {"hidden_sizes": (10, 20, 30), "maxout_units": (20, 10, 20)}, {}),
    "Captioner": ("captioner/digits", {"base_channels": 4, "feature_dim": 16, "hidden_size": 16}, {}),
    "CharCNNRNN": ("char_cnn_rnn/digits", {"channels": (8, 8, 8), "text_dim": 16}, {}),
    "ConditionalDCGAN": ("dcgan/digits_conditional", {"base_channels": 4, "hidden_size": 16}, {}),
    "ConvolutionalCGAN": (
        "cgan/digits",
        {"condition_size": 10, "hidden_size": 100, "maxout_channels": (4, 4, 4), "maxout_units": 10},
        {"batch_size": 20},
    ),
    "DCGAN": ("dcgan/digits", {"base_channels": 4}, {}),
    "DGNAM": (
        "dgn_am/digits",
        {
            "generator_units": (16,),
            "generator_channels": ((4,), (4,)),
            "discriminator_layers": ((4, 5, 2),),
            "num_steps": 2,
        },
        {},
    ),
    "DRAW": ("draw/digits", {"num_glimpses": 4, "hidden_size": 16, "num_importance_samples": 1}, {}),
    "DRAWClassifier": ("draw/cluttered_digits", {"hidden_size": 16}, {"source": "digits", "image_size": 40}),
    "DigitClassifier": ("digit_classifier/digits", {}, {}),
    "EoNADE": ("eonade/digits", {"hidden_size": 16}, {}),
    "GAN": ("gan/digits", {"hidden_size": 16, "latent_dim": 4, "maxout_units": 8, "maxout_pieces": 2}, {}),
    "GANINTCLS": ("gan_int_cls/digits", {"generator_channels": 4, "discriminator_channels": 4}, {}),
    "GAWWN": ("gawwn/digits", {**SMALL, "text_channels": 4}, {}),
    "GMMN": (
        "gmmn/digits",
        {
            "hidden_sizes": (16,),
            "code_sizes": (8, 4),
            "pretraining_steps": 3,
            "finetuning_steps": 5,
            "code_batch_size": 9,
            "bandwidths": None,
        },
        {"batch_size": 100},
    ),
    "ImprovedGAN": ("improved_gan/digits", {"num_labels": 100}, {}),
    "KeypointGAN": ("keypoint_gan/digits", {**SMALL}, {}),
    "LAPGAN": ("lapgan/digits", {"hidden_sizes": (20, 20), "channels": (4, 2), "parzen_samples": 0}, {}),
    "LabelReader": ("pix2pix/digits", {"palette": BLACK_AND_WHITE, "base_channels": 4}, {}),
    "MultiScalePixelRNN": ("pixel_rnn/digits", {"variant": "pixelcnn", "num_layers": 1, "hidden_size": 4}, {}),
    "NADE": ("nade/digits", {"hidden_size": 16}, {}),
    "PPGN": (
        "ppgn/digits",
        {
            "variant": "h",
            "generator_units": (16,),
            "generator_channels": ((4,), (4,)),
            "discriminator_layers": ((4, 5, 2),),
            "denoiser_units": (8,),
            "num_steps": 2,
        },
        {},
    ),
    "Pix2Pix": ("pix2pix/digits", {"base_channels": 4}, {}),
    "PixelRNN": ("pixel_rnn/digits", {"variant": "pixelcnn", "num_layers": 1, "hidden_size": 4}, {}),
    "VAE": ("vae/digits", {"mean_bias": True, "hidden_size": 16, "latent_dim": 4, "num_importance_samples": 5}, {}),
    "VGAN": ("vgan/digits", {"latent_dim": 8, **SMALL}, {"epoch_size": 80, "held_out_size": 8}),
    "VGANAutoencoder": (
        "vgan/digits_autoencoder",
        {"base_channels": 4, "encoder_channels": 4, "num_components": 16},
        {"epoch_size": 80, "held_out_size": 8},
    ),
    "VPN": (
        "vpn/digits",
        {"context_frames": 2, "channels": 4, "encoder_blocks": 1, "decoder_blocks": 1, "head_size": 8},
        {"image_size": 16, "digit_size": 8, "num_frames": 4, "epoch_size": 160, "held_out_size": 8},
    ),
}


class PaddedDigits(datamodules.DigitsDataModule):
    """On a border of black, under codes of their labels."""

    image_shape = (1, 32, 32)

    def _loader(self, *arguments: Any, **settings: Any) -> Any:
        loader = super()._loader(*arguments, **settings)
        loader.collate_fn = pad
        return loader


def pad(batch: Any) -> Any:
    return {"image": F.pad(batch["image"], (2, 2, 2, 2)), "attributes": F.one_hot(batch["label"], 10).float()}


class ColouredEdges(datamodules.EdgesToDigitsDataModule):
    """Edges in black and white, as maps of labels are given."""

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        return {**batch, "source": batch["source"].expand(-1, 3, -1, -1)}


DATA = {"ConvolutionalCGAN": PaddedDigits, "LabelReader": ColouredEdges}


@cache
def judge() -> str:
    """The checkpoint of an untrained AttributeClassifier of captioned digits."""
    torch.manual_seed(0)
    model = models.AttributeClassifier(base_channels=4, num_features=16)
    path = Path(tempfile.mkdtemp()) / "judge.ckpt"
    torch.save({"hyper_parameters": dict(model.hparams), "state_dict": model.state_dict()}, path)
    return str(path)


@cache
def tiny_batches(name: str) -> list[dict[str, Any]]:
    """The first three training batches of a tiny model's data, as its hooks leave them."""
    _, data = tiny(name)
    data.prepare_data()
    data.setup("fit")
    torch.manual_seed(0)
    batches = itertools.islice(data.train_dataloader(), 3)
    return [data.on_after_batch_transfer(data.on_before_batch_transfer(batch, 0), 0) for batch in batches]


class Endless(IterableDataset[dict[str, Any]]):
    """Batches again and again; it counts what is read."""

    def __init__(self, batches: list[dict[str, Any]]) -> None:
        self.batches = batches
        self.read = 0

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for batch in itertools.cycle(self.batches):
            self.read += 1
            yield batch


def endless(name: str) -> DataLoader[dict[str, Any]]:
    """A tiny model's batches again and again."""
    return DataLoader(Endless(tiny_batches(name)), batch_size=None)


def tiny(name: str) -> tuple[ImageModule, LightningDataModule]:
    """A model and its data, linked as the command line links them."""
    recipe, model_arguments, data_arguments = TINY[name]
    with open(resolve_recipe(recipe), encoding="utf-8") as file:
        config = yaml.safe_load(file)
    given = {part: config[part].get("init_args", {}) for part in ("model", "data")}
    data_class = DATA.get(name) or getattr(datamodules, config["data"]["class_path"].rpartition(".")[2])
    data = data_class(**{**given["data"], **data_arguments})
    if not config["model"]["class_path"].endswith(f".{name}"):  # Another model on the same data.
        given["model"] = {}
    if name == "CharCNNRNN":
        given["model"]["extractor_args"] = {"ckpt_path": judge()}
    model_class = getattr(models, name)
    accepted = inspect.signature(model_class).parameters
    linked = {key: getattr(data, key) for key in ("image_shape", "video_shape", "num_classes") if key in accepted}
    return model_class(**{**given["model"], **linked, **model_arguments}), data
