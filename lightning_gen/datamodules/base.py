"""What all data modules share: where data lie, batches with names, loaders, and what a checkpoint keeps of them."""

from __future__ import annotations

import inspect
import os
import sys
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import Any, Literal, TypedDict

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from lightning_gen._lightning import LightningDataModule, pl
from lightning_gen.arguments import Count, Sides, Size, check_constructors, described, plain
from lightning_gen.errors import DataError, LightningGenError

Batch = dict[str, Any]
"""Named rows: `image` (N, C, H, W) float32 in [0, 1], `label` (N,) int64, and what else a data set has."""

Columns = Mapping[str, Any]
"""A whole data set by name: tensors `(N, ...)`, of which uint8 means 8-bit pixels, or lists of N."""

Split = Literal["train", "val", "test"]

FIXED = ("box", "keypoints", "mask", "state", "action")
"""The keys of batches that tell where something is in the pixels."""

HELD_OUT_SEED = 0
"""Seed of every draw that makes a data set what it is: splits, and the binarisation of held-out images."""


def binarize(images: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Draw each pixel from a Bernoulli distribution whose mean is its grey value.

    Args:
        images: uint8.
        generator: source of randomness; the global one if None.

    Returns:
        Boolean pixels: P(True) is exactly `images / 255`, as one of 255 equally likely bytes is below the grey value.
        (Bytes, not floats: a third of the time that `torch.bernoulli` takes.)
    """
    return torch.empty_like(images).random_(0, 255, generator=generator) < images


class Loading(TypedDict, total=False):
    """What every data module takes beside its own arguments.

    Args:
        drop_last: leave out the last training batch of an epoch if it is smaller than the others.
        train_transform: any `nn.Module` or function of images `(N, C, H, W)` (clips `(N, C, T, H, W)`) in [0, 1], to
            which the training batches, and no others, are given on the device; its class path on the command line. A
            pair goes through it as one picture, the channels of source and image on top of each other.
    """

    drop_last: bool
    train_transform: Callable[..., Any] | None


def data_folder(root: str | Path | None) -> Path:
    """Where data lie: a given folder, else that of the environment variable LIGHTNING_GEN_DATA, else `./data`.

    With the variable `data/facades`, as recipes have it, is the folder `facades` in its own, unless it is here.
    """
    path, own = Path(root or "data").expanduser(), os.environ.get("LIGHTNING_GEN_DATA")
    if not own or path.is_absolute() or path.parts[:1] != ("data",) or (root and path.exists()):
        return path
    return Path(own, *path.parts[1:]).expanduser()


def height_and_width(size: Sides) -> tuple[int, int]:
    """Both sides of pictures, of which one is enough for squares."""
    height, width = size if isinstance(size, Sequence) else (size, size)
    return int(height), int(width)


def cut_out_at(number: int, margins: tuple[int, int]) -> Tensor:
    """Where something is cut out of each of some pictures, from the global random stream.

    Args:
        number: of pictures.
        margins: pixels that there are too many along each of two sides.

    Returns:
        The first pixel along both, `(number, 2)`.
    """
    if margins[0] == margins[1]:
        return torch.randint(margins[0] + 1, (number, 2))
    return torch.stack([torch.randint(margin + 1, (number,)) for margin in margins], 1)


def check_fractions(val_fraction: float, test_fraction: float) -> None:
    """Refuse shares of validation and test that leave nothing to train on.

    Raises:
        DataError: if they do.
    """
    if val_fraction + test_fraction >= 1:
        raise DataError(
            f"val_fraction={val_fraction}, test_fraction={test_fraction}; expected shares that leave something to "
            "train on."
        )


def check_load_size(image_size: Sides, load_size: Sides) -> None:
    """Refuse pictures that are smaller than what is cut out of them.

    Raises:
        DataError: if they are.
    """
    if any(whole < part for whole, part in zip(*map(height_and_width, (load_size, image_size)), strict=True)):
        raise DataError(f"image_size={image_size} is cut out of load_size={load_size}; expected no more than that.")


def take(columns: Columns, rows: Tensor) -> Batch:
    """The given rows of every column."""
    return {
        key: values[rows] if isinstance(values, Tensor) else [values[row] for row in rows.tolist()]
        for key, values in columns.items()
    }


class InMemoryDataset(Dataset[Batch]):
    """A data set held in memory, whose batch is one index operation per column.

    Pixels are kept as bytes and become floats batch by batch, which takes a quarter of the memory and, measured, no
    more time.

    Args:
        columns: tensors `(N, ...)`, of which uint8 means 8-bit pixels, or lists of N.
        binarize: draw the pixels of `image` anew at every access, from the global random stream.
    """

    def __init__(self, columns: Columns, binarize: bool = False) -> None:
        self.columns = columns
        self.binarize = binarize

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def __getitem__(self, index: int) -> Batch:
        return {key: values[0] for key, values in self.__getitems__([index]).items()}

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """A whole batch at once; the loader prefers it to `__getitem__`."""
        batch = take(self.columns, torch.as_tensor(indices))
        if self.binarize:
            batch["image"] = binarize(batch["image"]).float()
        for key, values in batch.items():
            if isinstance(values, Tensor) and values.dtype == torch.uint8:
                batch[key] = values.float().div_(255)
        return batch


def as_is(batch: Any) -> Any:
    """Collate what the data set has already put together; a function, as workers cannot be sent a lambda."""
    return batch


def in_own_words(batches: Iterator[Any]) -> Iterator[Any]:
    """Batches of a loader, whose errors of ours are one line again: a worker's comes with its traceback as its text."""
    try:
        yield from batches
    except LightningGenError as error:
        kind = f"{type(error).__module__}.{type(error).__qualname__}: "
        _, found, line = str(error).rpartition(kind)
        if not found:
            raise
        raise type(error)(line.strip()) from error


class Loader(DataLoader[Batch]):
    """A loader whose workers' errors are told in one line."""

    def __iter__(self) -> Any:
        return in_own_words(super().__iter__())


def made_again(transform: Mapping[str, Any]) -> Any:
    """A `train_transform` of the command line, as a checkpoint holds it, if its class has been imported.

    Raises:
        DataError: if it has not: a checkpoint must not run what nobody has asked for.
    """
    module, _, name = str(transform.get("class_path")).rpartition(".")
    kind = getattr(sys.modules.get(module), name, None)
    if not (isinstance(kind, type) and issubclass(kind, nn.Module)):  # Others may do anything when they are made.
        raise DataError(
            f"train_transform={described(transform)} names no nn.Module that is imported; import it before."
        )
    return kind(**transform.get("init_args", {}))


def several(names: Sequence[str], most: int = 10) -> str:
    """Names one after the other, and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most:,} more" if len(names) > most else "")


class ImageDataModule(LightningDataModule):
    """Base of all data modules: batches are dicts, and shapes are known before any file is read.

    A subclass gives `image_shape`, `num_classes` where there are labels, and `load`. Its constructor takes plain values
    and passes on those below; all of them become hyper-parameters, so that a checkpoint rebuilds the data module.

    Args:
        root: folder of the data; the environment variable LIGHTNING_GEN_DATA if None, else `./data` (`data_folder`).
        batch_size: images a batch, on each rank.
        num_workers: processes that load; 0 loads in the main one, the fastest for what is held in memory.
        download: fetch what is missing.
        classes: keep only images with these labels; the labels keep their numbers.
        drop_last: see `Loading`.
        train_transform: see `Loading`.

    Attributes:
        left_out: what lies among the data and is not read, in words, and how often.
    """

    binarization: str = "none"
    keeps_place: bool = False
    """Whether the training loader's place in the data is kept in checkpoints; `KeepPlace` sets it."""
    rows_are: str = "images"

    def __init__(
        self,
        root: str | None = None,
        batch_size: Size = 100,
        num_workers: Count = 0,
        download: bool = False,
        classes: list[int] | None = None,
        drop_last: bool = False,
        train_transform: Callable[..., Any] | None = None,
    ) -> None:
        super().__init__()
        if isinstance(train_transform, Mapping):  # As a checkpoint holds it.
            train_transform = made_again(train_transform)
        # Not to the logger, which refuses a model and data that have an argument of the same name but another value.
        self.save_hyperparameters(logger=False)
        self.root = data_folder(root)
        self.batch_size = int(batch_size)  # torch's loader takes no NumPy number.
        self.num_workers = num_workers
        self.download = download
        self.classes = classes
        self.drop_last = drop_last
        self.train_transform = train_transform
        if train_transform is not None:  # On the object: a hook of the class would hide a model's own of this name.
            self.on_after_batch_transfer = self._transformed  # type: ignore[method-assign]
        self.left_out: Counter[str] = Counter()
        self.datasets: dict[Split, Dataset[Batch]] = {}

    def save_hyperparameters(self, *args: Any, frame: FrameType | None = None, **kwargs: Any) -> None:
        """Keep what makes this data module again: the constructor's arguments, checked, as plain values.

        Raises:
            DataError: if one of ours is of another type than annotated, or out of bounds.
        """
        current = inspect.currentframe()
        frame = frame or (current and current.f_back)
        given = check_constructors(self, frame)
        super().save_hyperparameters(*args, frame=frame, **kwargs)
        accepted = {*inspect.signature(type(self).__init__).parameters, *given}
        kept = {
            name: plain(value)
            for name, value in self.hparams.items()
            # Of what all take, what is given: older checkpoints have none, and an object made in a script, which no
            # checkpoint can hold, is left out; that of the command line is a class path.
            if name in accepted and (name not in Loading.__annotations__ or (value and not callable(value)))
        }
        self.hparams.clear()  # Lightning's command line adds keys of its own.
        self.hparams.update(kept)

    # What the data are ------------------------------------------------------------------------------------------

    @property
    @abstractmethod
    def image_shape(self) -> tuple[int, ...]:
        """`(C, H, W)` of an image, or `(C, T, H, W)` of a video."""

    @property
    def video_shape(self) -> tuple[int, ...]:
        """`image_shape`, under the name that models of videos ask for it."""
        return self.image_shape

    @property
    def num_classes(self) -> int:
        """How many labels the data set has, 0 for none; `classes` does not change it, as labels keep their numbers."""
        return 0

    @property
    def class_names(self) -> list[str]:
        """What the classes are called, in the order of their labels; empty where nobody has named them."""
        return []

    @property
    def condition_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of one row of every batch tensor that a model can be conditioned on."""
        return {"label": ()} if self.num_classes else {}

    @abstractmethod
    def load(self) -> dict[Split, Dataset[Batch]]:
        """Make the data sets, each with `__getitems__`.

        Raises:
            DatasetNotFoundError: if the data are not there.
            DataError: if they are there but wrong.
        """

    def setup(self, stage: str | None = None) -> None:
        """Load all splits, once; before training say what they hold."""
        if not self.datasets:
            self._load_splits()
        if stage == "fit":
            pl.utilities.rank_zero_info(self.summary)

    @property
    def summary(self) -> str:
        """How many rows each split has, which classes there are, and what has been left out, in one line."""
        names: dict[Split, str] = {"train": "training", "val": "validation", "test": "test"}
        datasets: dict[Split, Any] = self.datasets
        sizes = [
            f"{len(datasets[split]):,} {name}" if hasattr(datasets[split], "__len__") else f"a stream of {name}"
            for split, name in names.items()
        ]
        parts = [f"{', '.join(sizes)} {self.rows_are}"]
        if self.num_classes:
            named = f": {several(self.class_names)}" if self.class_names else ""
            parts.append(f"{self.num_classes:,} classes{named}")
        if self.left_out:
            parts.append(
                f"left out: {several([f'{number:,} {what}' for what, number in sorted(self.left_out.items())])}"
            )
        return "; ".join(parts)

    def _load_splits(self) -> None:
        if self.classes is not None:
            unknown = sorted(set(self.classes) - set(range(self.num_classes)))
            if unknown or not self.classes:
                known = f"the labels 0 to {self.num_classes - 1}" if self.num_classes else "no labels"
                raise DataError(f"classes={self.classes} was asked for; {type(self).__name__} has {known}.")
        datasets: dict[Split, Any] = self.load()
        if hasattr(datasets["train"], "__len__") and not len(datasets["train"]):
            raise DataError(f"No training images are left of {self.root.absolute()} with classes={self.classes}.")
        self.datasets = datasets

    def in_memory(self, splits: Mapping[Split, Columns]) -> dict[Split, Dataset[Batch]]:
        """Data sets of columns held in memory: the `classes` asked for, pixels drawn if `binarization` says so.

        With `binarization="dynamic"` training pixels are drawn at every access, held-out ones once with a fixed seed,
        so that figures on them repeat.
        """
        datasets: dict[Split, Dataset[Batch]] = {}
        for split, columns in splits.items():
            dynamic = self.binarization == "dynamic"
            if dynamic and split != "train":
                drawn = binarize(columns["image"], torch.Generator().manual_seed(HELD_OUT_SEED))
                columns = {**columns, "image": drawn.byte() * 255}
            if self.classes is not None:
                kept = torch.isin(columns["label"], torch.tensor(self.classes))
                columns = take(columns, kept.nonzero().squeeze(1))
            datasets[split] = InMemoryDataset(columns, binarize=dynamic and split == "train")
        return datasets

    def _transformed(self, batch: Batch, dataloader_idx: int) -> Batch:
        """A batch on the device after the hook of a subclass, `train_transform` and the hook of the model."""
        batch = type(self).on_after_batch_transfer(self, batch, dataloader_idx)
        module: Any = self.trainer.lightning_module  # type: ignore[union-attr]
        if self.trainer.training:  # type: ignore[union-attr]
            batch = self.transformed(batch)
        return module.on_after_batch_transfer(batch, dataloader_idx)  # Lightning asks but one of the two.

    def transformed(self, batch: Batch) -> Batch:
        """A training batch after `train_transform`; a loop of one's own calls it, a Trainer does so by itself.

        Raises:
            DataError: if there are boxes or the like, which would not move with the pixels; or if the shape changes.
        """
        if self.train_transform is None:
            return batch
        if fixed := [key for key in FIXED if key in batch]:
            raise DataError(
                f"train_transform changes pixels alone, and batches of {type(self).__name__} have {', '.join(fixed)}, "
                "which would no longer fit them; leave it out."
            )
        key = "video" if "video" in batch else "image"
        keys = ["source", key] if "source" in batch else [key]
        before = torch.cat([batch[key] for key in keys], dim=1)
        after = self.train_transform(before)
        if not isinstance(after, Tensor) or after.shape != before.shape:
            raise DataError(
                f"train_transform made {described(after)} of {key}s {tuple(before.shape)}; expected the same shape."
            )
        changed = dict(zip(keys, after.split([batch[key].shape[1] for key in keys], dim=1), strict=True))
        return batch | changed | ({"image": changed["video"][:, :, 0]} if key == "video" and "image" in batch else {})

    # Loaders ----------------------------------------------------------------------------------------------------

    @property
    def draws(self) -> bool:
        """Whether a training image is drawn or changed at random when it is loaded."""
        return self.binarization == "dynamic"

    def train_dataloader(self) -> DataLoader[Batch]:
        """Every training image once an epoch, in an order that comes from torch's global random stream alone."""
        self.setup()
        return self._loader(self.datasets["train"], shuffle=True)

    def val_dataloader(self) -> DataLoader[Batch] | list[DataLoader[Batch]]:
        """The validation images in order; an empty list where the split has none."""
        return self._held_out_loader("val")

    def test_dataloader(self) -> DataLoader[Batch] | list[DataLoader[Batch]]:
        """The test images in order; an empty list where the split has none."""
        return self._held_out_loader("test")

    def predict_dataloader(self) -> DataLoader[Batch] | list[DataLoader[Batch]]:
        """The test images: samples are drawn under their conditions."""
        return self.test_dataloader()

    def _held_out_loader(self, split: Split) -> DataLoader[Batch] | list[DataLoader[Batch]]:
        self.setup()
        dataset: Any = self.datasets[split]
        return [] if hasattr(dataset, "__len__") and not len(dataset) else self._loader(dataset, shuffle=False)

    def _loader(self, dataset: Dataset[Batch], shuffle: bool) -> DataLoader[Batch]:
        settings: dict[str, Any] = {
            "batch_size": self.batch_size,
            "drop_last": shuffle and self.drop_last,
            "num_workers": self.num_workers,
            "collate_fn": as_is,
            "pin_memory": torch.cuda.is_available(),
            # A worker that lives on keeps its random stream to itself, and a resumed run could not continue it; one
            # that is started anew each epoch is seeded from the global stream.
            "persistent_workers": self.num_workers > 0 and not (shuffle and self.draws),
        }
        if shuffle and self.keeps_place:
            stateful = import_module("lightning_gen.datamodules.stateful")
            # The global stream stays as a checkpoint has restored it: order and workers' seeds have their own.
            seeds = torch.Generator().manual_seed(torch.initial_seed())
            return stateful.PlacedLoader(dataset, sampler=stateful.Order(dataset), generator=seeds, **settings)
        # Each pass draws a seed for workers: held-out passes from their own stream, so that training does not depend on
        # how often one looks.
        return Loader(dataset, shuffle=shuffle, generator=None if shuffle else torch.Generator(), **settings)
