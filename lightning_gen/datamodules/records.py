"""TFRecord files of `tf.train.Example` messages, without TensorFlow.

A record is its length (8 bytes, the lowest first), a checksum of these, its bytes, and a checksum of these. The
checksums are CRC-32C, turned right by 15 bits, plus a constant.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lightning_gen.errors import DataError

HEADER, FOOTER = 12, 4


class Record(NamedTuple):
    """Where a record lies."""

    path: Path
    start: int  # of its bytes, in the file
    length: int


def masked_crc(data: bytes) -> bytes:
    """The checksum of bytes as it stands in the file."""
    try:
        import google_crc32c
    except ImportError as error:
        raise DataError(
            "TFRecord files have checksums that google-crc32c computes; type: pip install 'lightning_gen[records]'"
        ) from error
    crc: int = google_crc32c.value(data)
    return (((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF).to_bytes(4, "little")


def find_records(path: Path) -> list[Record]:
    """Every record of a file, by its headers alone.

    Raises:
        DataError: if the file is damaged or ends within a record; it is named.
    """
    size, start, found = os.path.getsize(path), 0, []
    with path.open("rb") as file:
        while start < size:
            file.seek(start)
            header = file.read(HEADER)
            if len(header) < HEADER or masked_crc(header[:8]) != header[8:]:
                raise DataError(f"{path} is damaged at byte {start:,}: no header of a TFRecord; copy it anew.")
            record = Record(path, start + HEADER, int.from_bytes(header[:8], "little"))
            start = record.start + record.length + FOOTER
            if start > size:
                raise DataError(f"{path} has {size:,} bytes and ends within a record of {start:,}; copy it anew.")
            found.append(record)
    return found


def read_record(record: Record) -> bytes:
    """The bytes of a record.

    Raises:
        DataError: if they are not as they were written; the file is named.
    """
    with record.path.open("rb") as file:
        file.seek(record.start)
        data, checksum = file.read(record.length), file.read(FOOTER)
    if masked_crc(data) != checksum:
        raise DataError(f"{record.path} is damaged: the record at byte {record.start:,} has another checksum.")
    return data


def read_example(data: bytes) -> dict[str, bytes]:
    """The features of an Example by their names, each with the list that it holds still encoded.

    Raises:
        ValueError: if the bytes are no Example.
    """
    found: dict[str, bytes] = {}
    for features in fields(data, 1):
        for entry in fields(features, 1):
            (name,), (feature,) = fields(entry, 1), fields(entry, 2)
            found[name.decode()] = feature
    return found


def bytes_of(feature: bytes) -> bytes:
    """The one string of a feature."""
    (value,) = (value for values in fields(feature, 1) for value in fields(values, 1))
    return value


def floats_of(feature: bytes) -> Tensor:
    """The numbers of a feature, `(K,)`."""
    packed = b"".join(value for values in fields(feature, 2) for value in fields(values, 1))
    return torch.from_numpy(np.frombuffer(packed, "<f4").astype(np.float32))


def fields(message: bytes, number: int) -> list[bytes]:
    """What a protocol buffer has in its field of a number: strings, messages, packed lists, single floats."""
    return [value for key, value in all_fields(message) if key == number]


def all_fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    """Number and bytes of each field, in order."""
    position = 0
    while position < len(message):
        key, position = varint(message, position)
        kind = key & 7
        if kind == 2:
            length, position = varint(message, position)
        elif kind in (1, 5):  # 64 and 32 bits
            length = 8 if kind == 1 else 4
        elif kind == 0:
            length = varint(message, position)[1] - position
        else:
            raise ValueError(f"a field of the unknown kind {kind}")
        if position + length > len(message):
            raise ValueError("a field ends beyond its message")
        yield key >> 3, message[position : position + length]
        position += length


def varint(message: bytes, position: int) -> tuple[int, int]:
    """A number in groups of seven bits, the lowest first, and where it ends."""
    value = shift = 0
    while position < len(message):
        byte = message[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, position
        shift += 7
    raise ValueError("a number ends beyond its message")
