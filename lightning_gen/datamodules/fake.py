"""Random but valid values for every batch key, to test what is built on batches without any data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.utils.data import Dataset
from typing_extensions import Unpack

from lightning_gen.arguments import Count, ImageShape, Size, VideoShape
from lightning_gen.datamodules.base import Batch, Columns, ImageDataModule, Loading, Split
from lightning_gen.errors import DataError

KEYS = ("image", "label", "source", "text", "text_embedding", "caption", "box", "keypoints", "mask", "video")
NUM_CAPTIONS, TEXT_LENGTH, ALPHABET_SIZE, EMBEDDING_DIM, NUM_KEYPOINTS = 10, 201, 70, 1024, 15
"""As captioned birds have them; a character is a number from 1 to 70, and 0 ends a text."""


class FakeDataModule(ImageDataModule):
    """Random rows, the same at every start, different ones for training, validation and test.

    | key | value |
    |---|---|
    | `image`, `source` | `(N, C, H, W)` in [0, 1] |
    | `video` | `(N, C, T, H, W)` in [0, 1]; `image` is then its first frame |
    | `label` | `(N,)` int64, below `num_classes` |
    | `text` | `(N, 10, 201)` int64: ten captions an image, characters 1 to 70, padded with 0 |
    | `text_embedding` | `(N, 1024)`, normal |
    | `caption` | N lists of ten strings |
    | `box` | `(N, 4)`: left, top, width, height; inside [0, 1] |
    | `keypoints` | `(N, 15, 3)`: x and y in [0, 1], visible 0 or 1 |
    | `mask` | `(N, 1, H, W)`, 0 or 1 |

    Args:
        image_shape: `(C, H, W)`, or `(C, T, H, W)` with the key `video`.
        keys: the keys of a batch.
        num_classes: labels are below this.
        num_samples: rows of each split.
        batch_size: rows a batch, on each rank.
        num_workers: processes that load.
        loading: `drop_last` and `train_transform`, see `Loading`.

    Raises:
        DataError: if a key is unknown, or `image_shape` does not fit the keys.
    """

    def __init__(
        self,
        image_shape: ImageShape | VideoShape = (1, 28, 28),
        keys: Sequence[str] = ("image", "label"),
        num_classes: Count = 10,
        num_samples: Count = 64,
        batch_size: Size = 16,
        num_workers: Count = 0,
        **loading: Unpack[Loading],
    ) -> None:
        super().__init__(batch_size=batch_size, num_workers=num_workers, **loading)
        if unknown := sorted(set(keys) - set(KEYS)):
            raise DataError(f"keys={list(keys)} holds {unknown}; a batch can have {', '.join(KEYS)}.")
        if len(image_shape) != (4 if "video" in keys else 3):
            raise DataError(
                f"image_shape={tuple(image_shape)} does not fit keys={list(keys)}; expected (C, T, H, W) with the key "
                "'video', (C, H, W) without."
            )
        self._image_shape = tuple(image_shape)
        self.keys = tuple(keys)
        self._num_classes = num_classes
        self.num_samples = num_samples

    @property
    def image_shape(self) -> tuple[int, ...]:
        return self._image_shape

    @property
    def num_classes(self) -> int:
        return self._num_classes if "label" in self.keys else 0

    @property
    def condition_shapes(self) -> dict[str, tuple[int, ...]]:
        channels, *_, height, width = self.image_shape
        shapes: dict[str, tuple[int, ...]] = {
            "label": (),
            "source": (channels, height, width),
            "text": (NUM_CAPTIONS, TEXT_LENGTH),
            "text_embedding": (EMBEDDING_DIM,),
            "box": (4,),
            "keypoints": (NUM_KEYPOINTS, 3),
            "mask": (1, height, width),
        }
        return {key: shape for key, shape in shapes.items() if key in self.keys}

    def load(self) -> dict[Split, Dataset[Batch]]:
        splits: tuple[Split, ...] = ("train", "val", "test")
        return self.in_memory({split: self._rows(seed) for seed, split in enumerate(splits)})

    def _rows(self, seed: int) -> Columns:
        generator = torch.Generator().manual_seed(seed)
        n = self.num_samples
        channels, *_, height, width = self.image_shape

        def uniform(*shape: int) -> torch.Tensor:
            return torch.rand(n, *shape, generator=generator)

        def integers(high: int, *shape: int) -> torch.Tensor:
            return torch.randint(high, (n, *shape), generator=generator)

        pixels = uniform(*self.image_shape)
        lengths = integers(TEXT_LENGTH, NUM_CAPTIONS, 1) + 1
        size = 0.1 + 0.9 * uniform(2)
        words = integers(10, NUM_CAPTIONS).tolist()
        rows: dict[str, Any] = {
            "image": pixels[:, :, 0] if "video" in self.keys else pixels,
            "video": pixels,
            "label": integers(self._num_classes),
            "source": uniform(channels, height, width),
            "text": (integers(ALPHABET_SIZE, NUM_CAPTIONS, TEXT_LENGTH) + 1) * (torch.arange(TEXT_LENGTH) < lengths),
            "text_embedding": torch.randn(n, EMBEDDING_DIM, generator=generator),
            "caption": [
                [f"picture {row} with {word} things" for word in captions] for row, captions in enumerate(words)
            ],
            "box": torch.cat([uniform(2) * (1 - size), size], dim=1),
            "keypoints": torch.cat([uniform(NUM_KEYPOINTS, 2), integers(2, NUM_KEYPOINTS, 1)], dim=2),
            "mask": integers(2, 1, height, width).float(),
        }
        return {key: rows[key] for key in self.keys}
