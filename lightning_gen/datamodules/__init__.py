"""The data: LightningDataModules that yield batches of named tensors, images in [0, 1]."""

from lightning_gen.datamodules.base import ImageDataModule, InMemoryDataset
from lightning_gen.datamodules.digits import DigitsDataModule
from lightning_gen.datamodules.fake import FakeDataModule
from lightning_gen.datamodules.image_folder import ImageFolderDataModule
from lightning_gen.datamodules.mnist import MNISTDataModule

__all__ = [
    "DigitsDataModule",
    "FakeDataModule",
    "ImageDataModule",
    "ImageFolderDataModule",
    "InMemoryDataset",
    "MNISTDataModule",
]
