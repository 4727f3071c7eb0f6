"""Every model with its data in a size that trains in a second or two: the recipes on digits, made smaller."""

import inspect
from typing import Any

import yaml

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
    "CharCNNRNN": ("char_cnn_rnn/digits", {"channels": (8, 8, 8), "text_dim": 8, "extractor": None}, {}),
    "ConvolutionalCGAN": (
        "cgan/faces",
        {"condition_size": 10, "hidden_size": 100, "maxout_channels": (4, 4, 4), "maxout_units": 10},
        {"class_path": "lightning_gen.datamodules.MNISTDataModule"},
    ),
    "DCGAN": ("dcgan/digits", {"base_channels": 4}, {}),
    "DGNAM": (
        "dgn_am/digits",
        {"generator_units": (16,), "generator_channels": ((4,), (4,)), "discriminator_layers": ((4, 5, 2),)},
        {},
    ),
    "DRAW": ("draw/digits", {"num_glimpses": 4, "hidden_size": 16, "num_importance_samples": 1}, {}),
    "DRAWClassifier": ("draw/cluttered_digits", {"hidden_size": 16}, {"source": "digits", "image_size": 40}),
    "DigitClassifier": ("digit_classifier/digits", {}, {}),
    "EoNADE": ("eonade/digits", {"hidden_size": 16}, {}),
    "GAN": ("gan/digits", {"hidden_size": 16, "latent_dim": 4, "maxout_units": 8, "maxout_pieces": 2}, {}),
    "GANINTCLS": ("gan_int_cls/digits", {"generator_channels": 4, "discriminator_channels": 4}, {}),
    "GAWWN": ("gawwn/digits", {**SMALL, "text_channels": 4}, {}),
    "GMMN": ("gmmn/digits", {"hidden_sizes": (16,)}, {"batch_size": 100}),
    "ImprovedGAN": ("improved_gan/digits", {"num_labels": 100}, {}),
    "KeypointGAN": ("keypoint_gan/digits", {**SMALL}, {}),
    "LAPGAN": ("lapgan/digits", {"hidden_sizes": (20, 20), "channels": (4, 2), "parzen_samples": None}, {}),
    "LabelReader": ("pix2pix/digits", {"palette": BLACK_AND_WHITE, "base_channels": 4}, {}),
    "MultiScalePixelRNN": ("pixel_rnn/digits", {"variant": "pixelcnn", "num_layers": 1, "hidden_size": 4}, {}),
    "NADE": ("nade/digits", {"hidden_size": 16}, {}),
    "PPGN": (
        "ppgn/digits",
        {"generator_units": (16,), "generator_channels": ((4,), (4,)), "discriminator_layers": ((4, 5, 2),)},
        {},
    ),
    "Pix2Pix": ("pix2pix/digits", {"base_channels": 4}, {}),
    "PixelRNN": ("pixel_rnn/digits", {"variant": "pixelcnn", "num_layers": 1, "hidden_size": 4}, {}),
    "VAE": ("vae/digits", {"hidden_size": 16, "latent_dim": 4, "num_importance_samples": 5}, {}),
    "VGAN": ("vgan/digits", {"latent_dim": 8, **SMALL}, {"epoch_size": 80, "held_out_size": 8}),
    "VPN": (
        "vpn/digits",
        {"context_frames": 2, "channels": 4, "encoder_blocks": 1, "decoder_blocks": 1, "head_size": 8},
        {"image_size": 16, "digit_size": 8, "num_frames": 4, "epoch_size": 160, "held_out_size": 8},
    ),
}


def tiny(name: str) -> tuple[ImageModule, LightningDataModule]:
    """A model and its data, linked as the command line links them."""
    recipe, smaller, less = TINY[name]
    with open(resolve_recipe(recipe), encoding="utf-8") as file:
        config = yaml.safe_load(file)
    data_class = getattr(datamodules, less.get("class_path", config["data"]["class_path"]).rpartition(".")[2])
    data = data_class(**{**config["data"].get("init_args", {}), **{k: v for k, v in less.items() if k != "class_path"}})
    model_class = getattr(models, name)
    accepted = inspect.signature(model_class).parameters
    linked = {key: getattr(data, key) for key in ("image_shape", "video_shape", "num_classes") if key in accepted}
    same = config["model"].get("init_args", {}) if config["model"]["class_path"].endswith(f".{name}") else {}
    return model_class(**{**same, **linked, **smaller}), data
