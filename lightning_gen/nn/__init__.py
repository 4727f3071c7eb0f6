"""Networks and layers that two or more papers or judges share."""

from lightning_gen.nn.attributes import AttributeFeatures, AttributeNetwork
from lightning_gen.nn.bag_of_words import BagOfWords
from lightning_gen.nn.digits import DigitNetwork
from lightning_gen.nn.features import (
    DigitFeatures,
    EfficientNetLite0,
    FeatureExtractor,
    Features,
    FrameAverage,
    InceptionV3,
)
from lightning_gen.nn.foundation_features import CLIP, DINOv2
from lightning_gen.nn.frozen import FrozenNetwork, TorchvisionClassifier, make_frozen, read_layers
from lightning_gen.nn.initialization import initialize_normal
from lightning_gen.nn.label_reader import LabelFeatures, LabelNetwork
from lightning_gen.nn.masked import MaskedConv2d
from lightning_gen.nn.maxout import Maxout
from lightning_gen.nn.minibatch_discrimination import MinibatchDiscrimination
from lightning_gen.nn.virtual_batch_norm import VirtualBatchNorm
from lightning_gen.nn.weight_norm import WeightNorm, initialize_from_data

__all__ = [
    "CLIP",
    "AttributeFeatures",
    "AttributeNetwork",
    "BagOfWords",
    "DINOv2",
    "DigitFeatures",
    "DigitNetwork",
    "EfficientNetLite0",
    "FeatureExtractor",
    "Features",
    "FrameAverage",
    "FrozenNetwork",
    "InceptionV3",
    "LabelFeatures",
    "LabelNetwork",
    "MaskedConv2d",
    "Maxout",
    "MinibatchDiscrimination",
    "TorchvisionClassifier",
    "VirtualBatchNorm",
    "WeightNorm",
    "initialize_from_data",
    "initialize_normal",
    "make_frozen",
    "read_layers",
]
