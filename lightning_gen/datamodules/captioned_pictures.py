"""Photographs with captions: flowers, and whatever is in COCO.

The captions of flowers are those of Reed, Akata, Schiele and Lee, "Learning Deep Representations of Fine-Grained Visual
Descriptions" (2016); the flowers Nilsback and Zisserman's, "Automated Flower Classification over a Large Number of
Classes" (2008). COCO: Lin et al., "Microsoft COCO: Common Objects in Context" (2014).
"""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from typing_extensions import Unpack

from lightning_gen.arguments import Count, Sides, Size
from lightning_gen.datamodules.base import (
    HELD_OUT_SEED,
    Batch,
    ImageDataModule,
    Loading,
    Split,
    check_load_size,
    height_and_width,
)
from lightning_gen.datamodules.image_folder import naming
from lightning_gen.datamodules.paired_images import cut_out, pixels
from lightning_gen.errors import DataError, DatasetNotFoundError


class Captioned(NamedTuple):
    """A picture's file, what people have written of it, and its class, if it has one."""

    path: Path
    captions: list[str]
    label: int | None = None


class CaptionedPictures(Dataset[Batch]):
    """Pictures read from files as they are needed, squeezed to squares; for training moved and mirrored.

    Args:
        rows: the pictures, with labels for all or for none.
        image_size: side, or height and width, in pixels.
        load_size: what they are resized to before a random part is cut out.
        flip: mirror each picture left to right half of the time, from the global random stream.
    """

    def __init__(self, rows: Sequence[Captioned], image_size: Sides, load_size: Sides, flip: bool) -> None:
        self.rows = rows
        self.image_size = height_and_width(image_size)
        self.load_size = load_size
        self.flip = flip

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Batch:
        return {key: values[0] for key, values in self.__getitems__([index]).items()}

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """A whole batch at once; the loader prefers it to `__getitem__`."""
        rows = [self.rows[index] for index in indices]
        batch: Batch = {
            "image": torch.stack([self._read(row.path) for row in rows]).float().div_(255),
            "caption": [row.captions for row in rows],
        }
        if rows[0].label is not None:
            batch["label"] = torch.tensor([row.label for row in rows])
        return batch

    def _read(self, path: Path) -> Tensor:
        """Bytes `(3, H, W)`."""
        with naming(path), Image.open(path) as picture:
            image = pixels(picture, 3, self.load_size)
        image = cut_out(image, self.image_size)
        return image.flip(-1) if self.flip and torch.rand(()) < 0.5 else image


class CaptionedPicturesDataModule(ImageDataModule):
    """What `Flowers102CaptionsDataModule` and `CocoCaptionsDataModule` share.

    Args:
        root: folder of the data set's own folder; the environment variable LIGHTNING_GEN_DATA if None, else `./data`.
        image_size: side of the images in pixels, or height and width. Pictures are squeezed to it, as by the authors of
            GAN-INT-CLS.
        load_size: training pictures are resized to this side, or height and width, and a random part of `image_size` is
            cut out.
        flip: mirror training pictures half of the time.
        batch_size: images a batch, on each rank.
        num_workers: processes that read and decode.
        classes: keep only pictures with these labels.
        loading: `drop_last` and `train_transform`, see `Loading`.

    Raises:
        DataError: if `load_size` is less than `image_size`.
    """

    def __init__(
        self,
        root: str | None = None,
        image_size: Sides = 64,
        load_size: Sides = 76,
        flip: bool = True,
        batch_size: Size = 64,
        num_workers: Count = 0,
        classes: list[int] | None = None,
        **loading: Unpack[Loading],
    ) -> None:
        super().__init__(root, batch_size, num_workers, classes=classes, **loading)
        check_load_size(image_size, load_size)
        self.image_size = image_size
        self.load_size = load_size
        self.flip = flip

    @property
    def image_shape(self) -> tuple[int, ...]:
        return (3, *height_and_width(self.image_size))

    @property
    def draws(self) -> bool:
        return self.flip or self.load_size != self.image_size

    @abstractmethod
    def find(self) -> tuple[list[Captioned], list[Captioned]]:
        """The pictures to learn from, and those of the test."""

    def load(self) -> dict[Split, Dataset[Batch]]:
        parts = [[row for row in rows if self.classes is None or row.label in self.classes] for rows in self.find()]
        seen, test = parts
        order = torch.randperm(len(seen), generator=torch.Generator().manual_seed(HELD_OUT_SEED)).tolist()
        held_out = len(seen) // 10
        rows: dict[Split, list[Captioned]] = {
            "train": [seen[row] for row in order[held_out:]],
            "val": [seen[row] for row in order[:held_out]],
            "test": test,
        }
        return {
            split: CaptionedPictures(
                part,
                self.image_size,
                self.load_size if split == "train" else self.image_size,
                self.flip and split == "train",
            )
            for split, part in rows.items()
        }


class Flowers102CaptionsDataModule(CaptionedPicturesDataModule):
    """Flowers of 102 species with ten captions each, of which the authors' 20 are for the test.

    The folder `flowers-102` holds the published `jpg/image_00001.jpg`, ... and, from the captions' archive,
    `text_c10/class_00001/image_06734.txt`, ... with a caption in each line, and `testclasses.txt` with the names of the
    test's folders of `text_c10`. A tenth of the other pictures, by a fixed draw, is for validation. A batch holds
    `image`, `label` (the species, from 0) and `caption`.
    """

    @property
    def num_classes(self) -> int:
        return 102

    def find(self) -> tuple[list[Captioned], list[Captioned]]:
        folder = self.root / "flowers-102"
        try:
            held_out = (folder / "testclasses.txt").read_text(encoding="utf-8").split()
        except FileNotFoundError as error:
            raise self._missing(folder / "testclasses.txt") from error
        files = sorted((folder / "text_c10").glob("class_[0-9][0-9][0-9][0-9][0-9]/image_*.txt"))
        if not files:
            raise self._missing(folder / "text_c10" / "class_00001" / "image_06734.txt")
        seen: list[Captioned] = []
        test: list[Captioned] = []
        for file in files:
            captions = [line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
            picture = folder / "jpg" / f"{file.stem}.jpg"
            if not captions:
                raise DataError(f"{file} holds no captions; expected one in each line.")
            if not picture.exists():
                raise self._missing(picture)
            row = Captioned(picture, captions, int(file.parent.name.removeprefix("class_")) - 1)
            (test if file.parent.name in held_out else seen).append(row)
        if not test or not seen:
            raise DataError(
                f"{folder / 'text_c10'} has {'no' if not test else 'only'} species of {folder / 'testclasses.txt'}; "
                "expected some of both kinds."
            )
        return seen, test

    @staticmethod
    def _missing(path: Path) -> DatasetNotFoundError:
        return DatasetNotFoundError(
            f"{path.absolute()} is not there. jpg comes from https://www.robots.ox.ac.uk/~vgg/data/flowers/102, and "
            "text_c10 and testclasses.txt from https://github.com/reedscot/cvpr2016; name the folder that holds "
            "flowers-102 by root or the environment variable LIGHTNING_GEN_DATA."
        )


class CocoCaptionsDataModule(CaptionedPicturesDataModule):
    """COCO's photographs of 2014 with five captions each, without labels: 82,783 and, for the test, 40,504.

    The folder `coco` holds the published `train2014/COCO_train2014_000000000009.jpg`, ..., `val2014` likewise, and
    `annotations/captions_train2014.json` and `captions_val2014.json`. A tenth of `train2014`, by a fixed draw, is for
    validation. A batch holds `image` and `caption`; every image is one of another caption (`--model.mismatch image`).
    """

    def find(self) -> tuple[list[Captioned], list[Captioned]]:
        return self._part("train2014"), self._part("val2014")

    def _part(self, name: str) -> list[Captioned]:
        folder = self.root / "coco"
        file = folder / "annotations" / f"captions_{name}.json"
        try:
            held = json.loads(file.read_text(encoding="utf-8"))
            files = {image["id"]: folder / name / image["file_name"] for image in held["images"]}
            captions: dict[int, list[str]] = {number: [] for number in files}
            for annotation in held["annotations"]:
                captions[annotation["image_id"]].append(annotation["caption"].strip())
        except FileNotFoundError as error:
            raise self._missing(file) from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(
                f"{file} cannot be read ({type(error).__name__}: {error}); expected COCO's images and annotations."
            ) from error
        if silent := [files[number].name for number, texts in captions.items() if not any(texts)]:
            raise DataError(f"{file} has no captions of {', '.join(silent[:5])}; expected some of each of its images.")
        if lost := next((path for path in files.values() if not path.exists()), None):
            raise self._missing(lost)
        return [Captioned(path, [text for text in captions[number] if text]) for number, path in files.items()]

    @staticmethod
    def _missing(path: Path) -> DatasetNotFoundError:
        return DatasetNotFoundError(
            f"{path.absolute()} is not there. The images and annotations of 2014 come from "
            "https://cocodataset.org/#download; name the folder that holds coco by root or the environment variable "
            "LIGHTNING_GEN_DATA."
        )
