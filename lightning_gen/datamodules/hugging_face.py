"""Data sets of the Hugging Face hub, and local ones in its formats, read by the package `datasets`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, get_worker_info
from typing_extensions import Unpack

from lightning_gen.arguments import Count, Share, Sides, Size
from lightning_gen.datamodules.base import (
    HELD_OUT_SEED,
    Batch,
    ImageDataModule,
    Loader,
    Loading,
    Split,
    check_fractions,
    height_and_width,
)
from lightning_gen.datamodules.folders import SPLIT_NAMES
from lightning_gen.datamodules.image_folder import as_it_looks, fitted
from lightning_gen.errors import DataError, DatasetNotFoundError

FILES = {".parquet": "parquet", ".arrow": "arrow", ".jsonl": "json", ".json": "json", ".csv": "csv"}
"""How `datasets` calls the formats of single files."""


class Columns:
    """Makes a batch of rows as `datasets` gives them, with pictures that are not decoded yet.

    Args:
        name: of the data, for messages.
        image: column of the pictures.
        label: column of the labels, or None.
        caption: column of the captions, one text or several a picture, or None.
        label_names: if labels are texts, all of them in the order of their numbers.
        image_size: side, or height and width, in pixels.
        channels: 1 for grey, 3 for colour.
    """

    def __init__(
        self,
        name: str,
        image: str,
        label: str | None,
        caption: str | None,
        label_names: Sequence[str],
        image_size: Sides,
        channels: int,
    ) -> None:
        self.name = name
        self.image = image
        self.label = label
        self.caption = caption
        self.numbers = {name: number for number, name in enumerate(label_names)}
        self.image_size = image_size
        self.channels = channels

    def batch(self, rows: Sequence[dict[str, Any]], places: Sequence[int]) -> Batch:
        """A batch of rows, which are named by their places in an error."""
        pictures = [self.picture(row[self.image], place) for row, place in zip(rows, places, strict=True)]
        batch: Batch = {"image": torch.stack(pictures).float().div_(255)}
        if self.label is not None:
            batch["label"] = torch.tensor([self.number(row) for row in rows])
        if self.caption is not None:
            texts = [row[self.caption] for row in rows]
            batch["caption"] = [[text] if isinstance(text, str) else list(text) for text in texts]
        return batch

    def number(self, row: dict[str, Any]) -> int:
        """The label of a row."""
        value = row[self.label or ""]
        return self.numbers[value] if isinstance(value, str) else int(value)

    def picture(self, held: dict[str, Any], place: int) -> Tensor:
        """Bytes `(C, H, W)`."""
        try:
            with Image.open(held["path"] if held["bytes"] is None else BytesIO(held["bytes"])) as picture:
                return fitted(as_it_looks(picture), self.image_size, self.channels)
        except Exception as error:
            raise DataError(f"{self.name}, row {place:,}, cannot be read as a picture ({error}).") from error


class HubRows(Dataset[Batch]):
    """Rows that `datasets` finds by their numbers."""

    def __init__(self, rows: Any, columns: Columns) -> None:
        self.rows = rows
        self.columns = columns

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Batch:
        return {key: values[0] for key, values in self.__getitems__([index]).items()}

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """A whole batch at once; the loader prefers it to `__getitem__`."""
        return self.columns.batch([self.rows[index] for index in indices], indices)


class HubStream(IterableDataset[Batch]):
    """Rows that come one after the other, each worker's its share of the files, mixed in a buffer for training.

    Args:
        rows: as `datasets` streams them.
        columns: make batches of them.
        classes: labels to keep, or None for all.
        buffer: rows of which one is drawn at a time, from torch's global random stream; 0 keeps the order.
    """

    def __init__(self, rows: Any, columns: Columns, classes: Sequence[int] | None, buffer: int) -> None:
        self.rows = rows
        self.columns = columns
        self.classes = classes
        self.buffer = buffer

    def __iter__(self) -> Iterator[Batch]:
        rows, worker = self.rows, get_worker_info()
        if self.buffer:  # All workers share a seed, by which the files are dealt out to them.
            seed = int(torch.randint(2**31, ())) if worker is None else (worker.seed - worker.id) % 2**31
            rows = rows.shuffle(seed=seed, buffer_size=self.buffer)
        for place, row in enumerate(rows):
            if self.classes is None or self.columns.number(row) in self.classes:
                yield self.columns.batch([row], [place])


def together(rows: Sequence[Batch]) -> Batch:
    """One batch of batches of one row."""
    return {
        key: torch.cat([row[key] for row in rows]) if isinstance(first, Tensor) else [row[key][0] for row in rows]
        for key, first in rows[0].items()
    }


class HuggingFaceDataModule(ImageDataModule):
    """Pictures of a data set that `datasets` opens: `pip install 'lightning_gen[data]'`.

    Splits are found by their names (`valid`, `validation`, ...); what is missing of validation and test is drawn from
    the training rows, always alike, or is empty in a stream. Labels may be numbers or texts.

    Args:
        path: name on the hub, a folder of files there or here, one file, or a folder that `save_to_disk` has written.
        name: of the configuration, where the data set has several.
        image_column: of the pictures.
        label_column: of the labels; no labels if None.
        caption_column: of the captions, a text or a list of texts for each picture; no captions if None.
        splits: the data set's names of `train`, `val` and `test`; found by their usual names if None.
        image_size: side of square pictures in pixels, or height and width: what is too long by these proportions is
            cropped on both sides, and the rest resized.
        channels: 3 for colour, 1 for grey.
        streaming: read rows one after the other as they come, and keep no copy on the disk.
        shuffle_buffer: rows of a stream of which each next training row is drawn; 0 keeps their order.
        batch_size: images a batch, on each rank.
        num_workers: processes that read and decode; no more than files for a stream.
        classes: keep only rows with these labels.
        val_fraction: share of the rows that validation gets if there is no such split.
        test_fraction: share of the rows that the test gets if there is no such split.
        loading: `drop_last` and `train_transform`, see `Loading`.

    Raises:
        DataError: if an argument is out of range.
    """

    rows_are = "pictures"

    def __init__(
        self,
        path: str,
        name: str | None = None,
        image_column: str = "image",
        label_column: str | None = None,
        caption_column: str | None = None,
        splits: dict[str, str] | None = None,
        image_size: Sides = 64,
        channels: Literal[1, 3] = 3,
        streaming: bool = False,
        shuffle_buffer: Count = 1000,
        batch_size: Size = 64,
        num_workers: Count = 0,
        classes: list[int] | None = None,
        val_fraction: Share = 0.1,
        test_fraction: Share = 0.1,
        **loading: Unpack[Loading],
    ) -> None:
        super().__init__(None, batch_size, num_workers, classes=classes, **loading)
        check_fractions(val_fraction, test_fraction)
        if splits is not None and ("train" not in splits or set(splits) - {"train", "val", "test"}):
            raise DataError(f"splits={splits}; expected names of train and, where there are any, of val and test.")
        self.path = path
        self.name = name
        self.image_column = image_column
        self.label_column = label_column
        self.caption_column = caption_column
        self.splits = splits
        self.image_size = image_size
        self.channels = channels
        self.streaming = streaming
        self.shuffle_buffer = shuffle_buffer
        self.val_fraction = val_fraction
        self.test_fraction = test_fraction

    @property
    def image_shape(self) -> tuple[int, ...]:
        return (self.channels, *height_and_width(self.image_size))

    @property
    def num_classes(self) -> int:
        return len(self._labels)

    @property
    def class_names(self) -> list[str]:
        return [] if self._labels == list(map(str, range(len(self._labels)))) else self._labels

    @cached_property
    def _labels(self) -> list[str]:
        """The names of all labels, or their numbers as text."""
        if self.label_column is None:
            return []
        rows = self._opened["train"]
        names = getattr((rows.features or {}).get(self.label_column), "names", None)
        if names is not None:
            return list(names)
        if self.streaming:
            raise DataError(
                f"The column {self.label_column} of {self.path} does not say how many labels there are, and a stream "
                "is not read for it; give streaming=false, or a column of the type ClassLabel."
            )
        found = rows.unique(self.label_column)
        return sorted(found) if isinstance(found[0], str) else [str(number) for number in range(max(found) + 1)]

    @cached_property
    def _opened(self) -> dict[Split, Any]:
        """The splits that are there, with pictures that are not decoded."""
        try:
            import datasets
        except ImportError as error:
            raise DataError(
                "The package datasets, which reads such data, is not installed; type: pip install 'lightning_gen[data]'"
            ) from error
        path = Path(self.path).expanduser()
        try:
            if path.is_dir() and any(
                (path / name).is_file() for name in ("dataset_dict.json", "dataset_info.json", "state.json")
            ):
                opened: Any = datasets.load_from_disk(str(path))
                if self.streaming:
                    parts = {"train": opened} if isinstance(opened, datasets.Dataset) else opened
                    opened = {split: part.to_iterable_dataset() for split, part in parts.items()}
            elif path.is_file() and path.suffix in FILES:
                opened = datasets.load_dataset(FILES[path.suffix], data_files=str(path), streaming=self.streaming)
            else:
                found = str(path) if path.exists() else self.path
                opened = datasets.load_dataset(found, self.name, streaming=self.streaming)
        except Exception as error:  # There is no network, no such name, a damaged file, ...
            raise DatasetNotFoundError(
                f"{self.path} could not be opened ({' '.join(str(error).split()) or type(error).__name__}); path is a "
                "name on the Hugging Face hub, which needs the network, or a folder or file here."
            ) from error
        parts = opened if isinstance(opened, dict) else {"train": opened}
        names: dict[Any, Any] = self.splits or {
            split: name for name in parts if (split := SPLIT_NAMES.get(str(name).lower()))
        }
        if "train" not in names or (unknown := set(names.values()) - set(parts)):
            wanted = f"and not {', '.join(sorted(unknown))}" if "train" in names else "and no train"
            raise DataError(f"{self.path} has the splits {', '.join(map(str, parts))}, {wanted}; name them by splits.")
        return {split: self._undecoded(parts[name], datasets) for split, name in names.items()}

    def _undecoded(self, rows: Any, datasets: Any) -> Any:
        asked = (self.image_column, self.label_column, self.caption_column)
        columns = [column for column in asked if column is not None]
        known = rows.features or next(iter(rows))  # A stream may not say.
        if missing := [column for column in columns if column not in known]:
            raise DataError(
                f"{self.path} has the columns {', '.join(known)}, and no {', '.join(missing)}; give "
                "image_column, label_column and caption_column."
            )
        return rows.select_columns(columns).cast_column(self.image_column, datasets.Image(decode=False))

    def load(self) -> dict[Split, Dataset[Batch]]:
        columns = Columns(
            self.path,
            self.image_column,
            self.label_column,
            self.caption_column,
            self.class_names,
            self.image_size,
            self.channels,
        )
        opened = dict(self._opened)
        if self.streaming:
            streams: dict[Split, Any] = {"train": [], "val": [], "test": []}
            for split, rows in opened.items():
                buffer = self.shuffle_buffer if split == "train" else 0
                streams[split] = HubStream(self._share(rows), columns, self.classes, buffer)
            return streams
        train = opened["train"]
        order = torch.randperm(len(train), generator=torch.Generator().manual_seed(HELD_OUT_SEED)).tolist()
        fractions: tuple[tuple[Split, float], ...] = (("val", self.val_fraction), ("test", self.test_fraction))
        for split, fraction in fractions:
            if split not in opened:
                size = round(fraction * len(train))
                opened[split], order = train.select(order[:size]), order[size:]
        opened["train"] = train.select(order)
        if self.classes is not None:
            for split, rows in opened.items():
                numbers = [columns.number(row) for row in rows.select_columns([self.label_column])]
                kept = [place for place, number in enumerate(numbers) if number in self.classes]
                opened[split] = rows.select(kept)
        return {split: HubRows(rows, columns) for split, rows in opened.items()}

    def _share(self, rows: Any) -> Any:
        """What one of several ranks reads of a stream; Lightning deals out only what has a length."""
        if self.trainer is None or self.trainer.world_size == 1:
            return rows
        from datasets.distributed import split_dataset_by_node

        return split_dataset_by_node(rows, self.trainer.global_rank, self.trainer.world_size)

    def _loader(self, dataset: Dataset[Batch], shuffle: bool) -> DataLoader[Batch]:
        if not isinstance(dataset, HubStream):
            return super()._loader(dataset, shuffle)
        return Loader(
            dataset,
            batch_size=self.batch_size,
            drop_last=shuffle and self.drop_last,
            num_workers=self.num_workers,
            collate_fn=together,
            pin_memory=torch.cuda.is_available(),
        )
