"""Files of data sets: archives fetched whole or not at all, arrays read with one line of error."""

from __future__ import annotations

import os
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path
from typing import Any

import numpy as np

from lightning_gen.errors import DataError, DatasetNotFoundError


def read_arrays(path: Path, names: list[str]) -> list[np.ndarray[Any, Any]]:
    """Read named arrays from an `.npz` file.

    Raises:
        DataError: if the file is damaged or an array is missing.
    """
    try:
        with np.load(path) as arrays:
            return [arrays[name] for name in names]
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path} cannot be read ({error}); expected an .npz file with {', '.join(names)}.") from error


def read_mat(path: Path, names: list[str]) -> list[np.ndarray[Any, Any]]:
    """Read named arrays from a MATLAB file.

    Raises:
        DataError: if the file is damaged, an array is missing, or SciPy is not installed.
    """
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise DataError(
            f"{path} is a MATLAB file, which SciPy reads; type: pip install 'lightning_gen[mat]'"
        ) from error
    try:
        arrays = loadmat(path, variable_names=names)
        return [arrays[name] for name in names]
    except Exception as error:  # A damaged file can break the reader in any way.
        raise DataError(f"{path} cannot be read ({error}); expected a MATLAB file with {', '.join(names)}.") from error


def fetch(folder: Path, name: str, download: Callable[[Path], list[Path]]) -> None:
    """Download files into a folder: all of them, or none and nothing left behind.

    Args:
        folder: where they shall lie.
        name: what they are, for the message.
        download: puts the files into the temporary folder that it is given, and returns their paths.

    Raises:
        DatasetNotFoundError: if there is no network, a file is not as published, or the folder cannot be written.
    """
    parent = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.is_dir())
    try:
        with tempfile.TemporaryDirectory(dir=parent, prefix=".download-") as scratch:  # Same disk: moves are renames.
            files = download(Path(scratch))
            folder.mkdir(parents=True, exist_ok=True)
            for file in files:
                os.replace(file, folder / file.name)
    except (RuntimeError, OSError, ImportError, HTTPException) as error:  # Of torchvision, urllib, and a full disk.
        raise DatasetNotFoundError(
            f"{name} could not be downloaded to {folder.absolute()} ({' '.join(str(error).split())}); check the "
            "network, or copy the files there from another machine."
        ) from error
