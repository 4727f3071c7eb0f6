"""Robot arms that push things in bins, with their poses and commands, from the published files."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from typing_extensions import Unpack

from lightning_gen.arguments import Count, Share, Sides, Size
from lightning_gen.datamodules.base import Batch, ImageDataModule, Loading, Split, height_and_width
from lightning_gen.datamodules.image_folder import fitted
from lightning_gen.datamodules.records import Record, bytes_of, find_records, floats_of, read_example, read_record
from lightning_gen.errors import DataError, DatasetNotFoundError

IMAGE, STATE, ACTION = "image/encoded", "endeffector/vec_pitch_yaw", "commanded_pose/vec_pitch_yaw"
"""Features of frame i, each after `move/{i}/`: a JPEG of 640 x 512 pixels, and twice x, y, z, pitch and yaw."""

POSE = 5
"""Numbers of a pose."""

USED_FRAMES = 20
"""Sequences are longer; those who published figures on them used as many."""


class PushClips(Dataset[Batch]):
    """Clips out of the first 20 frames of each sequence, decoded when they are asked for.

    Args:
        records: the sequences.
        num_frames: of a clip.
        image_size: side of a frame in pixels, or height and width.
        anywhere: begin at a frame drawn from the global random stream, else at the first one.
    """

    def __init__(self, records: Sequence[Record], num_frames: int, image_size: Sides, anywhere: bool) -> None:
        self.records = records
        self.num_frames = num_frames
        self.image_size = image_size
        self.anywhere = anywhere

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Batch:
        """`video` `(3, T, S, S)`, and `state` and `action`, `(T, 5)`."""
        record = self.records[index]
        start = int(torch.randint(USED_FRAMES - self.num_frames + 1, ())) if self.anywhere else 0
        numbers = range(start, start + self.num_frames)
        try:
            features = read_example(read_record(record))
            frames = torch.stack([self.decode(bytes_of(features[f"move/{i}/{IMAGE}"])) for i in numbers], 1)
            state, action = (
                torch.stack([floats_of(features[f"move/{i}/{name}"]) for i in numbers]) for name in (STATE, ACTION)
            )
        except (KeyError, ValueError, OSError) as error:
            raise DataError(
                f"{record.path} has at byte {record.start:,} no sequence of {USED_FRAMES} frames as published: {error}."
            ) from error
        return {"video": frames.float().div_(255), "state": state, "action": action}

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        rows = [self[index] for index in indices]
        return {key: torch.stack([row[key] for row in rows]) for key in rows[0]}

    def decode(self, jpeg: bytes) -> Tensor:
        """A frame's largest centred part of its proportions, resized, uint8 `(3, H, W)`."""
        with Image.open(io.BytesIO(jpeg)) as picture:
            side = 2 * max(height_and_width(self.image_size))
            picture.draft(None, (side, side))  # A fraction of the work.
            return fitted(picture, self.image_size, 3)


class RobotPushingDataModule(ImageDataModule):
    """The robotic pushing set of Finn, Goodfellow and Levine (2016), from its TFRecord files.

    They lie in the folders `push_train` (264 files), `push_testseen` and `push_testnovel` below `root`;
    nothing else is needed, and nothing is fetched. A batch has clips, `video` `(N, 3, T, S, S)`, and for each frame the
    arm's pose, `state`, and the one that it was told to take, `action`, `(N, T, 5)`: x, y, z in metres, pitch and yaw.

    Args:
        root: folder of the three folders; the environment variable LIGHTNING_GEN_DATA if None, else `./data`.
        image_size: side of the square frames in pixels, or height and width.
        num_frames: of a clip, at most 20: anywhere in the first 20 of a sequence in training, else their beginning.
        novel: test on objects that training has not shown, else on others.
        val_fraction: share of the training sequences, the last ones, that validation gets.
        batch_size: clips a batch, on each rank.
        num_workers: processes that decode.
        loading: `drop_last` and `train_transform`, see `Loading`.

    Raises:
        DataError: if an argument is out of range.
    """

    def __init__(
        self,
        root: str | None = None,
        image_size: Sides = 64,
        num_frames: Size = 12,
        novel: bool = False,
        val_fraction: Share = 0.05,
        batch_size: Size = 64,
        num_workers: Count = 0,
        **loading: Unpack[Loading],
    ) -> None:
        super().__init__(root, batch_size, num_workers, **loading)
        if num_frames > USED_FRAMES or val_fraction == 1:
            raise DataError(
                f"num_frames={num_frames}, val_fraction={val_fraction}; expected 1 to {USED_FRAMES} frames, and a "
                "share under 1."
            )
        self.image_size = image_size
        self.num_frames = num_frames
        self.novel = novel
        self.val_fraction = val_fraction

    @property
    def image_shape(self) -> tuple[int, ...]:
        return (3, self.num_frames, *height_and_width(self.image_size))

    @property
    def condition_shapes(self) -> dict[str, tuple[int, ...]]:
        return {"state": (self.num_frames, POSE), "action": (self.num_frames, POSE)}

    @property
    def draws(self) -> bool:
        return True

    def load(self) -> dict[Split, Dataset[Batch]]:
        train = self.records("push_train")
        num_val = round(self.val_fraction * len(train))
        parts: dict[Split, list[Record]] = {
            "train": train[: len(train) - num_val],
            "val": train[len(train) - num_val :],
            "test": self.records("push_testnovel" if self.novel else "push_testseen"),
        }
        size = (self.num_frames, self.image_size)
        return {split: PushClips(records, *size, split == "train") for split, records in parts.items()}

    def records(self, folder: str) -> list[Record]:
        """All sequences of a folder, in the order of its files."""
        files = sorted(Path(self.root, folder).glob("*.tfrecord*"))
        if not files:
            raise DatasetNotFoundError(
                f"There are no files {folder}.tfrecord-00000-of-... in {Path(self.root, folder).absolute()}; copy them "
                "from gs://brain-robotics-data/push, and name the folder that push_train lies in by root."
            )
        return [record for file in files for record in find_records(file)]
