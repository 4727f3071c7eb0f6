"""The models: one LightningModule per paper."""

from lightning_gen.models.acgan import ACGAN
from lightning_gen.models.adversarial import AdversarialModule
from lightning_gen.models.attribute_classifier import AttributeClassifier
from lightning_gen.models.base import Batch, Condition, GenerativeModule, ImageModule, LikelihoodModule, as_batch
from lightning_gen.models.bernoulli_mixture import BernoulliMixture
from lightning_gen.models.captioner import Captioner
from lightning_gen.models.cgan import CGAN
from lightning_gen.models.char_cnn_rnn import CharCNNRNN
from lightning_gen.models.conditional_dcgan import ConditionalDCGAN
from lightning_gen.models.convolutional_cgan import ConvolutionalCGAN
from lightning_gen.models.dcgan import DCGAN
from lightning_gen.models.dgn_am import DGNAM
from lightning_gen.models.digit_classifier import DigitClassifier
from lightning_gen.models.draw import DRAW
from lightning_gen.models.draw_classifier import DRAWClassifier
from lightning_gen.models.eonade import EoNADE
from lightning_gen.models.gan import GAN
from lightning_gen.models.gan_int_cls import GANINTCLS
from lightning_gen.models.gawwn import GAWWN
from lightning_gen.models.gmmn import GMMN
from lightning_gen.models.improved_gan import ImprovedGAN
from lightning_gen.models.keypoint_gan import KeypointGAN
from lightning_gen.models.label_reader import LabelReader
from lightning_gen.models.lapgan import LAPGAN
from lightning_gen.models.nade import NADE
from lightning_gen.models.pix2pix import Pix2Pix
from lightning_gen.models.pixel_rnn import MultiScalePixelRNN, PixelRNN
from lightning_gen.models.ppgn import PPGN
from lightning_gen.models.vae import VAE
from lightning_gen.models.vgan import VGAN
from lightning_gen.models.vgan_autoencoder import VGANAutoencoder
from lightning_gen.models.vpn import VPN

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
    "AdversarialModule",
    "AttributeClassifier",
    "Batch",
    "BernoulliMixture",
    "Captioner",
    "CharCNNRNN",
    "Condition",
    "ConditionalDCGAN",
    "ConvolutionalCGAN",
    "DRAWClassifier",
    "DigitClassifier",
    "EoNADE",
    "GenerativeModule",
    "ImageModule",
    "ImprovedGAN",
    "KeypointGAN",
    "LabelReader",
    "LikelihoodModule",
    "MultiScalePixelRNN",
    "Pix2Pix",
    "PixelRNN",
    "VGANAutoencoder",
    "as_batch",
]
