"""The deep generative models of images that the field began with, as PyTorch Lightning modules."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning_gen.judging import judge
    from lightning_gen.models import (
        ACGAN,
        CGAN,
        DCGAN,
        DGNAM,
        DRAW,
        GAN,
        GANINTCLS,
        GAWWN,
        GMMN,
        LAPGAN,
        NADE,
        PPGN,
        VAE,
        VGAN,
        VPN,
        AttributeClassifier,
        BernoulliMixture,
        Captioner,
        CharCNNRNN,
        ConditionalDCGAN,
        ConvolutionalCGAN,
        DigitClassifier,
        DRAWClassifier,
        EoNADE,
        ImprovedGAN,
        KeypointGAN,
        LabelReader,
        MultiScalePixelRNN,
        Pix2Pix,
        PixelRNN,
        VGANAutoencoder,
    )

__version__ = "0.1.0"
__all__ = [
    "ACGAN",
    "CGAN",
    "DCGAN",
    "DGNAM",
    "DRAW",
    "GAN",
    "GANINTCLS",
    "GAWWN",
    "GMMN",
    "LAPGAN",
    "NADE",
    "PPGN",
    "VAE",
    "VGAN",
    "VPN",
    "AttributeClassifier",
    "BernoulliMixture",
    "Captioner",
    "CharCNNRNN",
    "ConditionalDCGAN",
    "ConvolutionalCGAN",
    "DRAWClassifier",
    "DigitClassifier",
    "EoNADE",
    "ImprovedGAN",
    "KeypointGAN",
    "LabelReader",
    "MultiScalePixelRNN",
    "Pix2Pix",
    "PixelRNN",
    "VGANAutoencoder",
    "judge",
]


def __getattr__(name: str) -> Any:  # The models are imported when they are first named: importing the package is free.
    if name == "judge":
        return import_module("lightning_gen.judging").judge
    if name in __all__:
        return getattr(import_module("lightning_gen.models"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
