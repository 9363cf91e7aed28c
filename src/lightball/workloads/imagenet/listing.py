"""Which images there are: their names, labels and sizes, and where their bytes are read."""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import pyarrow as pa

from lightball.errors import InputError, reason_of

if TYPE_CHECKING:
    from jaxtyping import Int

_SUFFIXES = frozenset((".jpeg", ".jpg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"))
TEST_NAMES = ("val", "validation")


class Source(Protocol):
    """Images by number; can be sent to other processes."""

    def name(self, number: int) -> str:
        """How a message calls the image."""

    def read(self, number: int) -> bytes:
        """The file's content."""


@dataclass(frozen=True)
class Listing:
    """All images: the first ``num_train`` to train on, the others to test on.

    ``keys`` tell files apart: a hash of name and size.
    """

    source: Source
    labels: Int[np.ndarray, "image"]
    keys: Int[np.ndarray, "image"]
    num_train: int
    num_classes: int


@dataclass(frozen=True)
class FolderImages:
    """Files below a folder, by their paths in it."""

    root: Path
    paths: pa.StringArray  # a tenth of the memory of a list

    def name(self, number: int) -> str:
        return str(self.paths[number])

    def read(self, number: int) -> bytes:
        return (self.root / self.name(number)).read_bytes()


def list_folder(root: Path) -> Listing:
    """The images of ``train/<class>/`` and ``val/<class>/``, classes numbered in alphabetical order.

    Cost: the system is asked for the size of every file.

    Raises:
        InputError: one of the two is missing, holds no classes or no images, or ``val`` has a class more.
    """
    train, test = root / "train", _test_folder(root)
    classes = _classes(train)
    numbers = {name: number for number, name in enumerate(classes)}
    if unknown := [name for name in _classes(test) if name not in numbers]:
        raise InputError(
            f"{str(test)!r} has the class {unknown[0]!r}, which {str(train)!r} has not: both need folders of the same "
            "names, one for each class"
        )
    splits = [
        [(path, size, numbers[name]) for name in _classes(split) for path, size in _images(split / name)]
        for split in (train, test)
    ]
    for split, found in zip((train, test), splits, strict=True):
        if not found:
            raise InputError(f"{str(split)!r} holds no images in its class folders ({', '.join(sorted(_SUFFIXES))})")
    paths, sizes, labels = zip(*itertools.chain(*splits), strict=True)
    names = [os.path.relpath(path, root) for path in paths]
    source = FolderImages(root.absolute(), pa.array(names, pa.string()))
    return Listing(source, np.asarray(labels), keys_of(names, sizes), len(splits[0]), len(classes))


def keys_of(names: Sequence[str], sizes: Sequence[int]) -> Int[np.ndarray, "image"]:
    """63 bits for each file, of its name and size."""
    digests = (
        hashlib.blake2b(f"{name} {size}".encode(), digest_size=8).digest()
        for name, size in zip(names, sizes, strict=True)
    )
    return np.frombuffer(b"".join(digests), dtype="<i8") & (2**63 - 1)


def successors(labels: Int[np.ndarray, "image"], num_train: int) -> Int[np.ndarray, "image"]:
    """For each image the next of its class and split, for the last of them the first."""
    numbers = np.arange(len(labels))
    split = numbers >= num_train
    order = np.lexsort((numbers, labels, split))
    kinds = np.stack([split[order], labels[order]])
    first = np.flatnonzero(np.append(True, (kinds[:, 1:] != kinds[:, :-1]).any(axis=0)))
    following = np.roll(order, -1)
    last = np.append(first[1:], len(order)) - 1
    following[last] = order[first]
    result = np.empty_like(order)
    result[order] = following
    return result


def _test_folder(root: Path) -> Path:
    found = [root / name for name in TEST_NAMES if (root / name).is_dir()]
    if not found:
        raise InputError(
            f"{str(root)!r} has no folder val: required are train/<class>/*.JPEG and val/<class>/*.JPEG, or Parquet "
            "files train-*.parquet and validation-*.parquet"
        )
    return found[0]


def _classes(split: Path) -> list[str]:
    try:
        names = sorted(entry.name for entry in os.scandir(split) if entry.is_dir() and not entry.name.startswith("."))
    except OSError as error:
        raise InputError(f"cannot read the folder {str(split)!r}: {error.strerror or reason_of(error)}") from error
    if not names:
        raise InputError(
            f"{str(split)!r} has no class folders: sort its images into folders, one for each class, of equal names in "
            "train and val"
        )
    return names


def _images(folder: Path) -> Iterator[tuple[str, int]]:
    """Paths and sizes of the image files below a folder, in alphabetical order; hidden ones are none."""
    for entry in sorted(os.scandir(folder), key=lambda e: e.name):
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            yield from _images(Path(entry.path))
        elif os.path.splitext(entry.name)[1].lower() in _SUFFIXES:
            yield entry.path, entry.stat().st_size
