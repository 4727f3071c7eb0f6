"""The data: LightningDataModules that yield batches of named tensors, images in [0, 1]."""

from lightning_gen.datamodules.base import ImageDataModule, InMemoryDataset
from lightning_gen.datamodules.captioned_digits import CaptionedDigitsDataModule
from lightning_gen.datamodules.captioned_pictures import CocoCaptionsDataModule, Flowers102CaptionsDataModule
from lightning_gen.datamodules.cifar10 import CIFAR10DataModule
from lightning_gen.datamodules.cluttered_digits import ClutteredDigitsDataModule
from lightning_gen.datamodules.cub import CUBDataModule
from lightning_gen.datamodules.digit_scenes import DigitScenesDataModule
from lightning_gen.datamodules.digits import DigitsDataModule
from lightning_gen.datamodules.edges_to_digits import EdgesToDigitsDataModule
from lightning_gen.datamodules.fake import FakeDataModule
from lightning_gen.datamodules.hugging_face import HuggingFaceDataModule
from lightning_gen.datamodules.image_folder import ImageFolderDataModule
from lightning_gen.datamodules.mnist import MNISTDataModule
from lightning_gen.datamodules.moving_digits import MovingDigitsDataModule
from lightning_gen.datamodules.olivetti import OlivettiDataModule
from lightning_gen.datamodules.paired_images import PairedImageDataModule
from lightning_gen.datamodules.placed_digits import PlacedDigitsDataModule
from lightning_gen.datamodules.robot_pushing import RobotPushingDataModule
from lightning_gen.datamodules.torchvision import TorchvisionDataModule
from lightning_gen.datamodules.toronto_faces import TorontoFacesDataModule
from lightning_gen.datamodules.vectors import VectorDataModule
from lightning_gen.datamodules.video_folder import VideoFolderDataModule

__all__ = [
    "CIFAR10DataModule",
    "CUBDataModule",
    "CaptionedDigitsDataModule",
    "ClutteredDigitsDataModule",
    "CocoCaptionsDataModule",
    "DigitScenesDataModule",
    "DigitsDataModule",
    "EdgesToDigitsDataModule",
    "FakeDataModule",
    "Flowers102CaptionsDataModule",
    "HuggingFaceDataModule",
    "ImageDataModule",
    "ImageFolderDataModule",
    "InMemoryDataset",
    "MNISTDataModule",
    "MovingDigitsDataModule",
    "OlivettiDataModule",
    "PairedImageDataModule",
    "PlacedDigitsDataModule",
    "RobotPushingDataModule",
    "TorchvisionDataModule",
    "TorontoFacesDataModule",
    "VectorDataModule",
    "VideoFolderDataModule",
]
