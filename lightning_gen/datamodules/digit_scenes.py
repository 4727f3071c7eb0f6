"""Digits that move over a ground that stands still: the smallest scenes with a foreground and a background."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset
from typing_extensions import Unpack

from lightning_gen.arguments import Count, Share, Size
from lightning_gen.datamodules.base import Batch, Loading, Split
from lightning_gen.datamodules.moving_digits import FIRST_SEED, MovingDigits, MovingDigitsDataModule

KNOTS = 2
"""Random colours on each side of a ground, between which it is interpolated."""

BRIGHTEST = 0.6
"""Of a ground: white digits stand out."""


class DigitScenes(MovingDigits):
    """Clips of white digits that move over coloured grounds, each with its ground in the same numbers as its digits.

    Args:
        directions: digits move in one of so many directions, and a clip's label is that of its digit at the start; in
            any direction and without labels if None.
    """

    def __init__(
        self,
        digits: Tensor,
        image_size: int,
        num_digits: int,
        num_frames: int,
        step: float,
        size: int,
        first_seed: int | None = None,
        directions: int | None = None,
    ) -> None:
        super().__init__(digits, image_size, num_digits, num_frames, step, size, first_seed)
        self.moving = num_digits
        self.num_digits += 3 * KNOTS**2 // 4  # Further rows of four numbers, for the ground.
        self.directions = directions

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """A whole batch at once; `image` are the first frames."""
        of_digits, of_ground = self.uniform(indices).split([self.moving, self.num_digits - self.moving], 1)
        batch: Batch = {}
        if self.directions is not None:
            direction = (of_digits[..., 3] * self.directions).long()
            of_digits = torch.cat([of_digits[..., :3], direction[..., None] / self.directions], -1)
            if self.moving == 1:
                batch["label"] = direction.squeeze(1)
        alpha = self.draw(of_digits).float().div_(255)[:, None]  # (N, 1, T, S, S)
        knots = BRIGHTEST * of_ground.reshape(-1, 3, KNOTS, KNOTS)
        ground = F.interpolate(knots, self.image_size, mode="bilinear", align_corners=True)
        video = ground[:, :, None].lerp(alpha.new_ones(()), alpha)
        return batch | {"video": video, "image": video[:, :, 0]}


class DigitScenesDataModule(MovingDigitsDataModule):
    """Moving digits in white over smooth coloured grounds that stand still, which are drawn for each clip.

    Digits move as in `MovingDigitsDataModule`. A batch has the clips, `video`, and their first frames, `image`.

    Args:
        source: the 5,000 embedded digits (`digits`), or MNIST, split 50,000/10,000/10,000 (`mnist`).
        image_size: side of a frame in pixels.
        num_digits: digits in a clip.
        digit_size: side of a digit in pixels, to which its 28 are averaged.
        num_frames: frames of a clip.
        step: from frame to frame, as a part of the way from border to border.
        directions: digits start in one of so many directions, which is the clip's `label` if it has one digit; in any
            direction and without labels if None.
        epoch_size: clips of a training epoch; each is drawn when it is asked for.
        held_out_size: clips for validation, and for test.
        root: folder of MNIST; the environment variable LIGHTNING_GEN_DATA if None, else `./data`.
        batch_size: clips a batch, on each rank.
        num_workers: processes that draw clips.
        download: fetch MNIST if it is missing.
        classes: keep only these digits.
        loading: `drop_last` and `train_transform`, see `Loading`.

    Raises:
        DataError: if a size or number is out of range.
    """

    def __init__(
        self,
        source: Literal["digits", "mnist"] = "digits",
        image_size: Size = 32,
        num_digits: Size = 1,
        digit_size: Size = 16,
        num_frames: Size = 16,
        step: Share = 0.1,
        directions: Size | None = 8,
        epoch_size: Size = 4000,
        held_out_size: Size = 500,
        root: str | None = None,
        batch_size: Size = 16,
        num_workers: Count = 0,
        download: bool = False,
        classes: list[int] | None = None,
        **loading: Unpack[Loading],
    ) -> None:
        super().__init__(
            source=source,
            image_size=image_size,
            num_digits=num_digits,
            digit_size=digit_size,
            num_frames=num_frames,
            step=step,
            epoch_size=epoch_size,
            held_out_size=held_out_size,
            root=root,
            batch_size=batch_size,
            num_workers=num_workers,
            download=download,
            classes=classes,
            **loading,
        )
        self.directions = directions

    @property
    def image_shape(self) -> tuple[int, ...]:
        return (3, self.num_frames, self.image_size, self.image_size)

    @property
    def num_classes(self) -> int:
        """The directions; `classes` chooses among the digits."""
        return self.directions or 0 if self.num_digits == 1 else 0

    @property
    def condition_shapes(self) -> dict[str, tuple[int, ...]]:
        return super().condition_shapes | {"image": (3, self.image_size, self.image_size)}

    def clips(self, digits: Tensor, split: Split) -> Dataset[Batch]:
        """The clips of one part of the data, of its digits, bytes `(M, 1, 28, 28)`."""
        moving = super().clips(digits, split)
        assert isinstance(moving, MovingDigits)
        motion = (self.image_size, self.num_digits, self.num_frames, self.step)
        return DigitScenes(moving.digits, *motion, len(moving), FIRST_SEED.get(split), self.directions)
