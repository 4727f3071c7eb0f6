"""Caltech-UCSD Birds: photographs of 200 species with captions, boxes and parts.

Wah, Branson, Welinder, Perona and Belongie, "The Caltech-UCSD Birds-200-2011 Dataset" (2011); the captions are those of
Reed, Akata, Schiele and Lee, "Learning Deep Representations of Fine-Grained Visual Descriptions" (2016).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from typing_extensions import Unpack

from lightning_gen.arguments import Count, Sides, Size
from lightning_gen.datamodules.base import (
    HELD_OUT_SEED,
    Batch,
    Columns,
    ImageDataModule,
    Loading,
    Split,
    check_load_size,
    cut_out_at,
    height_and_width,
    take,
)
from lightning_gen.datamodules.image_folder import naming
from lightning_gen.datamodules.paired_images import pixels
from lightning_gen.errors import DataError, DatasetNotFoundError


class Birds(Dataset[Batch]):
    """Birds held in memory; for training a random square is cut out of each, and half of them are mirrored.

    Boxes and keypoints go with the pixels: a box is cut off at the border, a keypoint beyond it is no longer visible,
    and a mirrored left eye is a right one.

    Args:
        columns: `image` (N, 3, H, W) in bytes, `box`, `keypoints`, and others, which stay as they are.
        image_size: height and width in pixels.
        swapped: for each part the one that it becomes in the mirror.
        flip: mirror half of the birds.
    """

    def __init__(self, columns: Columns, image_size: tuple[int, int], swapped: Tensor, flip: bool) -> None:
        self.columns = columns
        self.image_size = image_size
        self.swapped = swapped
        self.flip = flip

    def __len__(self) -> int:
        return len(self.columns["image"])

    def __getitem__(self, index: int) -> Batch:
        return {key: values[0] for key, values in self.__getitems__([index]).items()}

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """A whole batch at once; the loader prefers it to `__getitem__`."""
        batch = take(self.columns, torch.as_tensor(indices))
        images, (height, width) = batch["image"], self.image_size
        number, margins = len(images), (images.shape[-1] - width, images.shape[-2] - height)
        corners = cut_out_at(number, margins) if any(margins) else torch.zeros(number, 2, dtype=torch.long)
        mirrored = torch.rand(number) < 0.5 if self.flip else torch.zeros(number, dtype=torch.bool)
        images = torch.stack(
            [
                image[:, top : top + height, left : left + width]
                for image, (left, top) in zip(images, corners.tolist(), strict=True)
            ]
        )
        batch["image"] = torch.where(mirrored[:, None, None, None], images.flip(-1), images).float().div_(255)
        batch["box"], batch["keypoints"] = self._moved(batch["box"], batch["keypoints"], corners, mirrored)
        return batch

    def _moved(self, box: Tensor, keypoints: Tensor, corners: Tensor, mirrored: Tensor) -> tuple[Tensor, Tensor]:
        """Boxes `(N, 4)` and keypoints `(N, P, 3)` in shares of what has been cut out."""
        size, load_size = torch.tensor(self.image_size[::-1]), torch.tensor(self.columns["image"].shape[:-3:-1])
        low = (box[:, :2] * load_size - corners) / size
        high = low + box[:, 2:] * load_size / size
        low, high = low.clamp(0, 1), high.clamp(0, 1)
        places = (keypoints[..., :2] * load_size - corners[:, None]) / size
        visible = keypoints[..., 2] * ((places >= 0) & (places <= 1)).all(2)
        left = torch.where(mirrored, 1 - high[:, 0], low[:, 0])
        x = torch.where(mirrored[:, None], 1 - places[..., 0], places[..., 0])
        points = torch.stack([x, places[..., 1], torch.ones_like(x)], 2) * visible[..., None]
        points = torch.where(mirrored[:, None, None], points[:, self.swapped], points)
        return torch.cat([left[:, None], low[:, 1:], high - low], 1), points


class CUBDataModule(ImageDataModule):
    """Birds of up to 200 species, in colour, from the folders `CUB_200_2011` and `text_c10` in their published layout.

    A batch holds `image`, `label`, ten captions each (`caption`), `box`, and 15 `keypoints`. Pictures are squeezed to
    squares, as the authors of GAN-INT-CLS do; a folder with a part of the species will do.

    Args:
        root: folder of both; the environment variable LIGHTNING_GEN_DATA if None, else `./data`.
        image_size: side of the images in pixels, or height and width.
        load_size: training pictures are resized to this side, or height and width, and a random part of `image_size` is
            cut out.
        split: test images by `train_test_split.txt`, of the same species as in training (`official`); or all images of
            the species in `CUB_200_2011/testclasses.txt`, the authors' list of 50 (`zero_shot`). A tenth of the other
            images, by a fixed draw, is for validation.
        flip: mirror training pictures half of the time.
        batch_size: images a batch, on each rank.
        num_workers: processes that load; 0 is the fastest.
        classes: keep only these species, from 0.
        loading: `drop_last` and `train_transform`, see `Loading`.
    """

    def __init__(
        self,
        root: str | None = None,
        image_size: Sides = 64,
        load_size: Sides = 76,
        split: Literal["official", "zero_shot"] = "official",
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
        self.split = split
        self.flip = flip
        self.folder = self.root / "CUB_200_2011"

    @property
    def image_shape(self) -> tuple[int, ...]:
        return (3, *height_and_width(self.image_size))

    @property
    def num_classes(self) -> int:
        return 200

    @property
    def condition_shapes(self) -> dict[str, tuple[int, ...]]:
        return {"label": (), "box": (4,), "keypoints": (15, 3)}

    @property
    def draws(self) -> bool:
        return self.flip or self.load_size != self.image_size

    def load(self) -> dict[Split, Dataset[Batch]]:
        paths = [line[1] for line in self._table("images.txt")]
        labels = torch.tensor([int(line[1]) - 1 for line in self._table("image_class_labels.txt")])
        boxes = torch.tensor([[float(x) for x in line[1:]] for line in self._table("bounding_boxes.txt")])
        parts = torch.tensor([[float(x) for x in line[2:]] for line in self._table("parts/part_locs.txt")])
        names = [" ".join(line[1:]) for line in self._table("parts/parts.txt")]
        if not len(paths) == len(labels) == len(boxes) == len(parts) / len(names):
            raise DataError(
                f"The tables in {self.folder} are of {len(paths)} images, {len(labels)} labels, {len(boxes)} boxes and "
                f"{len(parts)} places of {len(names)} parts; expected as many for each image."
            )
        is_test = self._test_images(paths)
        kept = torch.arange(len(paths)) if self.classes is None else self._of_classes(labels)
        order = torch.randperm(len(kept), generator=torch.Generator().manual_seed(HELD_OUT_SEED))
        rest = kept[order][~is_test[kept[order]]]
        rows: dict[Split, Tensor] = {"val": rest[: len(rest) // 10], "train": rest[len(rest) // 10 :]}
        rows["test"] = kept[is_test[kept]]

        mirror = {"left": "right", "right": "left"}
        images = [" ".join(mirror.get(word, word) for word in name.split()) for name in names]
        swapped = torch.tensor([names.index(name) for name in images])
        splits: dict[Split, Dataset[Batch]] = {}
        for split, part in rows.items():
            side = height_and_width(self.load_size if split == "train" else self.image_size)
            read = [self._read(paths[row], side) for row in part.tolist()]
            size = torch.tensor([[width, height] for _, width, height in read]).view(-1, 2)
            places = parts.view(len(paths), len(names), 3)[part]
            columns = {
                "image": torch.stack([image for image, *_ in read])
                if read
                else torch.empty(0, 3, *side, dtype=torch.uint8),
                "label": labels[part],
                "caption": [self._captions(paths[row]) for row in part.tolist()],
                "box": boxes[part] / size.repeat(1, 2),
                "keypoints": torch.cat([places[..., :2] / size[:, None], places[..., 2:]], 2) * places[..., 2:],
            }
            splits[split] = Birds(columns, height_and_width(self.image_size), swapped, self.flip and split == "train")
        return splits

    def _table(self, name: str) -> list[list[str]]:
        """The words of each line of a text file."""
        return [line.split() for line in self._lines(self.folder / name)]

    def _lines(self, path: Path) -> list[str]:
        try:
            return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        except FileNotFoundError as error:
            raise DatasetNotFoundError(
                f"{path.absolute()} is not there. CUB_200_2011 comes from "
                "https://www.vision.caltech.edu/datasets/cub_200_2011, text_c10 and testclasses.txt from "
                "https://github.com/reedscot/cvpr2016; name the folder that holds both by root or the environment "
                "variable LIGHTNING_GEN_DATA."
            ) from error

    def _test_images(self, paths: Sequence[str]) -> Tensor:
        """Which images are for the test, `(N,)`."""
        if self.split == "official":
            return torch.tensor([line[1] == "0" for line in self._table("train_test_split.txt")])
        held_out = set(self._lines(self.folder / "testclasses.txt"))
        is_test = torch.tensor([path.partition("/")[0] in held_out for path in paths])
        if not is_test.any() or is_test.all():
            raise DataError(
                f"{self.folder} has images of {'only' if is_test.any() else 'none of'} the {len(held_out)} species in "
                "testclasses.txt; a zero-shot split needs some of both kinds: give split=official."
            )
        return is_test

    def _of_classes(self, labels: Tensor) -> Tensor:
        return torch.isin(labels, torch.tensor(self.classes)).nonzero().squeeze(1)

    def _read(self, path: str, side: tuple[int, int]) -> tuple[Tensor, int, int]:
        """A picture squeezed to a size, `(3, H, W)` in bytes, and the width and height that it had."""
        file = self.folder / "images" / path
        with naming(file), Image.open(file) as picture:
            return pixels(picture, 3, side), picture.width, picture.height

    def _captions(self, path: str) -> list[str]:
        """What people have written of a picture."""
        file = self.root / "text_c10" / Path(path).with_suffix(".txt")
        captions = self._lines(file)
        if not captions:
            raise DataError(f"{file} holds no captions; expected one in each line.")
        return captions
