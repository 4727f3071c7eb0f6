"""Large public picture sets for those who have them on disk: SVHN, STL-10, CelebA, LSUN and ImageNet."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from typing_extensions import Unpack

from lightning_gen.arguments import Count, Sides, Size
from lightning_gen.datamodules.base import HELD_OUT_SEED, Batch, ImageDataModule, Loading, Split, height_and_width
from lightning_gen.datamodules.files import fetch
from lightning_gen.datamodules.image_folder import fitted
from lightning_gen.errors import DataError, DatasetNotFoundError

Name = Literal["svhn", "stl10", "celeba", "lsun", "imagenet"]


class PictureSet(NamedTuple):
    """A set in torchvision's words: its class, and the names of its splits."""

    class_name: str
    train: str
    val: str | None  # None: held out from the training pictures
    test: str
    target: Literal["label", "attributes"] | None = None  # the batch key of what comes with a picture
    num_classes: int = 0
    origin: str | None = None  # None: torchvision downloads it


SETS = {
    "svhn": PictureSet("SVHN", "train", None, "test", "label", 10),
    "stl10": PictureSet("STL10", "unlabeled", None, "test"),
    "celeba": PictureSet("CelebA", "train", "valid", "test", "attributes"),
    "lsun": PictureSet("LSUN", "train", None, "val", origin="https://www.yf.io/p/lsun"),
    "imagenet": PictureSet("ImageNet", "train", None, "val", "label", 1000, origin="https://image-net.org, on request"),
}
NUM_ATTRIBUTES = 40


class LSUNPart:
    """A folder `<category>_{train,val}_lmdb` of LSUN; torchvision's reader leaves a pickle in the working folder.

    Args:
        path: the folder.
    """

    def __init__(self, path: Path) -> None:
        if not (path / "data.mdb").exists():
            raise FileNotFoundError(f"there is no {path / 'data.mdb'}")
        self.path = str(path)
        with self._open() as database, database.begin() as transaction:
            self.keys = list(transaction.cursor().iternext(keys=True, values=False))

    def _open(self) -> Any:
        """The database, opened for each picture: it must not be taken into another process, and 0.1 ms is little."""
        import lmdb

        return lmdb.open(self.path, readonly=True, lock=False, readahead=False)

    def __len__(self) -> int:
        return len(self.keys)

    def place(self, index: int) -> str:
        """Where a picture lies, for messages."""
        return f"{self.path} under the key {self.keys[index].decode(errors='replace')}"

    def __getitem__(self, index: int) -> tuple[Image.Image, None]:
        with self._open() as database, database.begin() as transaction:
            return Image.open(BytesIO(transaction.get(self.keys[index]))), None


class SquareDataset(Dataset[Batch]):
    """Rows of a data set of pairs, a picture and its target, with the pictures cropped and resized.

    Args:
        source: pairs by number.
        rows: which of them, `(N,)`.
        image_size: side, or height and width, in pixels.
        target: the batch key of the targets; None leaves them out.
    """

    def __init__(self, source: Any, rows: Tensor, image_size: Sides, target: str | None) -> None:
        self.source = source
        self.rows = rows
        self.image_size = image_size
        self.target = target

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Batch:
        return {key: values[0] for key, values in self.__getitems__([index]).items()}

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """A whole batch at once; the loader prefers it to `__getitem__`."""
        pairs = [self._read(row) for row in self.rows[torch.as_tensor(indices)].tolist()]
        batch = {"image": torch.stack([image for image, _ in pairs]).float().div_(255)}
        if self.target is not None:
            batch[self.target] = torch.stack([torch.as_tensor(target) for _, target in pairs])
        return batch

    def _read(self, row: int) -> tuple[Tensor, Any]:
        """A picture, `(3, H, W)` in bytes, and its target."""
        try:
            picture, target = self.source[row]
            return fitted(picture, self.image_size, channels=3), target
        except Exception as error:
            raise DataError(
                f"{place_of(self.source, row)} cannot be read as a picture ({error}); get it anew."
            ) from error


def place_of(source: Any, row: int) -> str:
    """Where a picture of LSUN or of one of torchvision's data sets lies, as far as that is a file of its own."""
    if isinstance(source, LSUNPart):
        return source.place(row)
    if hasattr(source, "samples"):  # ImageNet
        return str(source.samples[row][0])
    if hasattr(source, "filename"):  # CelebA
        return str(Path(source.root, source.base_folder, "img_align_celeba", source.filename[row]))
    return f"Picture {row:,} of {type(source).__name__} in {source.root}"


class TorchvisionDataModule(ImageDataModule):
    """A public set in colour, from the files that torchvision's class of it reads (and downloads, where it can).

    | `name` | training | validation | test | in a batch beside `image` |
    |---|---|---|---|---|
    | `svhn` | 73,257 digits of house numbers | held out | 26,032 | `label` |
    | `stl10` | the 100,000 without labels | held out | 8,000 | |
    | `celeba` | 162,770 faces | 19,867 | 19,962 | `attributes` `(N, 40)`, 0 or 1 |
    | `lsun` | a category | held out | its 300 for validation | |
    | `imagenet` | 1,281,167 | held out | the 50,000 for validation | `label` |

    Held out are `val_size` training pictures, drawn with a fixed seed. Each picture is read when it is needed; its
    largest centred square, or part of other proportions, is resized (bicubic, antialiased), so ImageNet at 32 and 64 is
    made of whole pictures. The downsampled ones that were published are folders of PNG files, for
    `ImageFolderDataModule`.

    Args:
        name: of the set.
        image_size: side of the pictures in pixels, or height and width.
        root: folder of the data; the environment variable LIGHTNING_GEN_DATA if None, else `./data`.
        batch_size: images a batch, on each rank.
        num_workers: processes that read and decode.
        download: fetch SVHN, STL-10 or CelebA if it is missing; nobody may fetch the others by a program.
        classes: keep only these labels.
        val_size: training pictures held out where a set has no validation split.
        category: of LSUN, from the folders `<category>_{train,val}_lmdb`, which the package lmdb reads.
        loading: `drop_last` and `train_transform`, see `Loading`.

    Raises:
        DataError: if there is no such set, or a size is out of range.
    """

    def __init__(
        self,
        name: Name,
        image_size: Sides = 64,
        root: str | None = None,
        batch_size: Size = 64,
        num_workers: Count = 0,
        download: bool = False,
        classes: list[int] | None = None,
        val_size: Count = 5000,
        category: str = "bedroom",
        **loading: Unpack[Loading],
    ) -> None:
        super().__init__(root, batch_size, num_workers, download, classes, **loading)
        self.name = name
        self.image_size = image_size
        self.val_size = val_size
        self.category = category
        self.set = SETS[name]

    @property
    def image_shape(self) -> tuple[int, ...]:
        return (3, *height_and_width(self.image_size))

    @property
    def num_classes(self) -> int:
        return self.set.num_classes

    @property
    def condition_shapes(self) -> dict[str, tuple[int, ...]]:
        return {"attributes": (NUM_ATTRIBUTES,)} if self.set.target == "attributes" else super().condition_shapes

    def prepare_data(self) -> None:
        """Download what is missing, if asked to; Lightning calls this in one process."""
        if not self.download:
            return
        splits = [split for split in (self.set.train, self.set.val, self.set.test) if split is not None]
        try:
            for split in splits:
                self._open(split)
        except DatasetNotFoundError:
            if self.set.origin:
                raise
            fetch(self.root, self.set.class_name, lambda scratch: self._fetched(scratch, splits))

    def _fetched(self, scratch: Path, splits: Sequence[str]) -> list[Path]:
        """What torchvision puts into a folder for some splits, and checks the sums of."""
        import torchvision

        for split in splits:
            getattr(torchvision.datasets, self.set.class_name)(scratch, split, download=True)
        return list(scratch.iterdir())

    def load(self) -> dict[Split, Dataset[Batch]]:
        train, test = self._open(self.set.train), self._open(self.set.test)
        order = torch.arange(len(train))
        if self.set.val is not None:
            val, held_out = self._open(self.set.val), None
        elif self.val_size < len(train):
            drawn = torch.randperm(len(train), generator=torch.Generator().manual_seed(HELD_OUT_SEED))
            val, held_out, order = train, drawn[: self.val_size].sort().values, drawn[self.val_size :].sort().values
        else:
            raise DataError(f"val_size is {self.val_size}, and {self.name} has {len(train)} training pictures to give.")
        return {
            "train": self._pictures(train, order),
            "val": self._pictures(val, held_out),
            "test": self._pictures(test, None),
        }

    def _open(self, split: str) -> Any:
        """One of torchvision's data sets, which checks the sums of the files that it unpacks or unpickles."""
        import torchvision

        try:
            if self.name == "lsun":
                return LSUNPart(self.root / f"{self.category}_{split}_lmdb")
            return getattr(torchvision.datasets, self.set.class_name)(self.root, split)
        except (RuntimeError, OSError, ImportError) as error:
            remedy = f"get it from {self.set.origin}" if self.set.origin else "give --data.download true"
            raise DatasetNotFoundError(
                f"{self.set.class_name}'s files of {split!r} were looked for in {self.root.absolute()} and cannot be "
                f"read ({' '.join(str(error).split())}); name the folder that holds them by root or the environment "
                f"variable LIGHTNING_GEN_DATA, or {remedy}"
            ) from error

    def _pictures(self, source: Any, rows: Tensor | None) -> SquareDataset:
        """The rows, or all, that have the `classes` asked for."""
        rows = torch.arange(len(source)) if rows is None else rows
        if self.classes is not None:  # SVHN's labels and ImageNet's targets are at hand without reading a picture.
            labels = torch.as_tensor(source.labels if self.name == "svhn" else source.targets)
            rows = rows[torch.isin(labels[rows], torch.tensor(self.classes))]
        return SquareDataset(source, rows, self.image_size, self.set.target)
