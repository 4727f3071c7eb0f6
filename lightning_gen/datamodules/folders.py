"""Anybody's folders: which of their subfolders are splits, which are classes, and what in them is not read."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import torch

from lightning_gen.datamodules.base import HELD_OUT_SEED, Split, several
from lightning_gen.errors import DataError, DatasetNotFoundError

SPLIT_NAMES: dict[str, Split] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}
"""What splits are called, in small letters."""

HIDDEN = (".", "@eaDir", "__MACOSX")
"""How names begin that a system has given: hidden files, thumbnails of Synology, forks of macOS in a zip file."""


class Found(NamedTuple):
    """A file, or a folder that is read as one, and the subfolder of its split that it lies in (empty if in none)."""

    path: Path
    class_name: str


Finder = Callable[[Path, "Counter[str]"], list[Found]]
"""What is to be read of a folder and its subfolders, in alphabetical order; what is not is counted."""


class Layout(NamedTuple):
    """What a folder holds."""

    splits: dict[Split, list[Found]]  # `train`, and those that have a folder of their own
    class_names: list[str]


def walk(folder: Path, left_out: Counter[str]) -> Iterator[tuple[Path, list[str]]]:
    """Each folder below one, itself first, with the names of its files, but for hidden ones.

    Links are followed once all folders that are none have been entered, and only to where nobody has been: not back to
    a parent, nor from one class to another.
    """

    def refuse(error: OSError) -> None:
        raise error

    entered = {(status.st_dev, status.st_ino) for status in map(os.stat, folder.resolve().parents)}
    waiting = [folder] if folder.is_dir() else []
    for start in waiting:  # It grows meanwhile.
        for parent, subfolders, names in os.walk(start, onerror=refuse):
            status = os.stat(parent)
            if (status.st_dev, status.st_ino) in entered:
                left_out["link to a folder that is read already"] += 1
                subfolders.clear()
                continue
            entered.add((status.st_dev, status.st_ino))
            subfolders[:] = sorted(name for name in subfolders if not name.startswith(HIDDEN))
            waiting += [path for name in subfolders if (path := Path(parent, name)).is_symlink()]
            yield Path(parent), sorted(name for name in names if not name.startswith(HIDDEN))


def class_of(path: Path, folder: Path) -> str:
    """The first of the subfolders of a folder that something lies in, empty if it lies in none."""
    inside = path.relative_to(folder).parts[:-1]
    return inside[0] if inside else ""


def suffix_of(path: Path) -> str:
    """How a file is counted that is not read."""
    return path.suffix.lower() or "without suffix"


def split_folders(root: Path) -> dict[Split, Path]:
    """The subfolders that are called like splits, in any case and by any of their usual names.

    Raises:
        DataError: if two are the same split.
    """
    found: dict[Split, Path] = {}
    for path in sorted(path for path in root.iterdir() if path.is_dir()):
        split = SPLIT_NAMES.get(path.name.lower())
        if split in found:
            raise DataError(f"{found[split].name} and {path.name} in {root} are both the {split} split; remove one.")
        if split is not None:
            found[split] = path
    return found


def read_layout(root: Path, find: Finder, what: str, left_out: Counter[str]) -> Layout:
    """Tell splits and classes of a folder.

    `train` is a split if it stands alone, or has `val` or `test` beside it (see `SPLIT_NAMES`); it is a class if all
    that stands beside it are other folders. Two or more subfolders of the splits are classes if all files lie in them.
    Files beside them are left out if they are fewer than the smallest class has, and else there are no classes.

    Args:
        root: the folder.
        find: what is read of it.
        what: is read, as a word in messages.
        left_out: counts what is not.

    Raises:
        DataError: if there are folders for validation or test and none for training.
    """
    folders = split_folders(root)
    others = [
        path
        for path in sorted(root.iterdir())
        if path.is_dir() and path not in folders.values() and not path.name.startswith(HIDDEN)
    ]
    beside = {path: number for path in others if folders and (number := len(find(path, Counter())))}
    if "train" in folders and (len(folders) > 1 or not beside):
        left_out.update({f"in {path.name}": number for path, number in beside.items()})
        loose = (path for path in root.iterdir() if path.is_file() and not path.name.startswith(HIDDEN))
        left_out.update(f"{suffix_of(path)} beside {folders['train'].name}" for path in loose)
    elif folders and "train" not in folders and not beside and not find_in(root, find):
        raise DataError(
            f"{root.absolute()} has {' and '.join(path.name for path in folders.values())}, and no folder train to "
            f"train on; name one so, or give one of them as root, whose {what} are then drawn for all splits."
        )
    else:
        folders = {"train": root}
    splits = {split: find(folder, left_out) for split, folder in folders.items()}
    sizes = Counter(found.class_name for split in splits.values() for found in split)
    unsorted = sizes.pop("", 0)
    if len(sizes) < 2:
        return Layout(splits, [])
    if unsorted:
        first = next(found.path for split in splits.values() for found in split if not found.class_name)
        sorted_too = all(any(found.class_name for found in split) for split in splits.values() if split)
        if unsorted >= min(sizes.values()) or not sorted_too:
            warnings.warn(
                f"{root} has no classes: {unsorted:,} {what}, such as {first}, lie beside the folders "
                f"{several(sorted(sizes))} and in none of them.",
                stacklevel=2,
            )
            return Layout(splits, [])
        left_out[f"beside the folders of classes ({first.name})"] += unsorted
        splits = {split: [found for found in part if found.class_name] for split, part in splits.items()}
    return Layout(splits, sorted(sizes))


def find_in(folder: Path, find: Finder) -> list[Found]:
    """What is to be read of a folder without its subfolders."""
    return [found for found in find(folder, Counter()) if found.path.parent == folder]


def draw_missing(splits: dict[Split, list[Found]], fractions: dict[Split, float]) -> dict[Split, list[Found]]:
    """All splits: those without a folder are drawn from the training files, always alike for the same names."""
    rest = splits["train"]
    order = torch.randperm(len(rest), generator=torch.Generator().manual_seed(HELD_OUT_SEED)).tolist()
    drawn: dict[Split, list[Found]] = {}
    for split, fraction in fractions.items():
        if split not in splits:
            size = round(fraction * len(rest))
            drawn[split] = [rest[row] for row in order[:size]]
            order = order[size:]
    return splits | drawn | {"train": [rest[row] for row in order]}


def check_not_empty(folder: Path, found: list[Found], what: str, left_out: Counter[str]) -> None:
    """Refuse a folder that nothing can be read of."""
    if not found:
        others = several([f"{number:,} {name}" for name, number in sorted(left_out.items())])
        raise DatasetNotFoundError(
            f"{folder.absolute()} and its subfolders hold no {what}{f' (left out: {others})' if others else ''}."
        )
