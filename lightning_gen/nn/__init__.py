"""Networks and layers that two or more papers or judges share."""

from lightning_gen.nn.digits import DigitNetwork
from lightning_gen.nn.features import DigitFeatures, FeatureExtractor, Features, InceptionV3
from lightning_gen.nn.maxout import Maxout

__all__ = ["DigitFeatures", "DigitNetwork", "FeatureExtractor", "Features", "InceptionV3", "Maxout"]
