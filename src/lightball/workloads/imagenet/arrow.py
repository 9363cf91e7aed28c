"""Images in Parquet files or on the Hugging Face hub, read from Arrow files that stay on the disk."""

from __future__ import annotations

import hashlib
import importlib
import os
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from lightball.errors import InputError, reason_of
from lightball.workloads.imagenet.listing import Listing, keys_of

_COLUMNS = ["image", "label"]
_PATTERNS = (("train-*.parquet",), ("validation-*.parquet", "val-*.parquet"))


@dataclass(frozen=True)
class ArrowImages:
    """The column ``image`` of Arrow stream files, mapped into memory in each process that reads it."""

    files: tuple[str, ...]

    def name(self, number: int) -> str:
        path = _table(self.files)["image"][number]["path"].as_py()
        if path:
            return str(path)
        ends = list(accumulate(len(_table((file,))) for file in self.files))
        file = bisect_right(ends, number)
        row = number - (ends[file - 1] if file else 0)
        return f"row {row} of {Path(self.files[file]).stem}"

    def read(self, number: int) -> bytes:
        content: bytes | None = _table(self.files)["image"][number]["bytes"].as_py()
        if content is None:
            raise ValueError("the row holds no bytes")
        return content


def has_parquet(root: Path) -> bool:
    """Whether the folder, or ``data/`` in it, has files with training images."""
    return _parquet_folder(root) is not None


def list_parquet(root: Path) -> Listing:
    """The images of ``train-*.parquet`` and ``validation-*.parquet``, as on the hub, in ``root`` or its ``data/``.

    A row of a Parquet file cannot be read alone, so the files are written as Arrow files once, to the user's cache
    folder (XDG_CACHE_HOME, by default ``~/.cache``), where they take as much space as the images.

    Raises:
        InputError: files are missing, cannot be read or written, or hold something else.
    """
    folder = _parquet_folder(root)
    assert folder is not None
    splits = []
    for patterns in _PATTERNS:
        files = sorted(file for pattern in patterns for file in folder.glob(pattern))
        if not files:
            raise InputError(f"{str(folder)!r} has no files {patterns[0]}, where the images to test on should be")
        splits.append([_as_arrow(file) for file in files])
    return _listing(splits[0], splits[1], repr(str(folder)))


def list_hub(hub: str) -> Listing:
    """The splits ``train`` and ``validation`` of a data set on the hub, through ``datasets`` and its cache.

    Raises:
        InputError: ``datasets`` is not installed, the hub cannot be reached, or the data set is not as expected.
    """
    other = "or give a folder with train/<class>/ and val/<class>/ as data (--data, or LIGHTBALL_DATA)"
    try:
        datasets: Any = importlib.import_module("datasets")
    except ImportError as error:
        raise InputError(
            f"{hub} comes from the Hugging Face hub, which needs datasets: pip install 'lightball[text]', {other}"
        ) from error
    splits = []
    for split in ("train", "validation"):
        try:
            found = datasets.load_dataset(hub, split=split)
        except Exception as error:  # of the network, of the hub, of datasets: there is no common kind
            raise InputError(
                f"cannot load {hub} ({split}) from the Hugging Face hub: {reason_of(error)} (look at the network and "
                f"at the terms of use that its page asks you to accept, {other})"
            ) from error
        files = [entry["filename"] for entry in found.cache_files]
        if len(_table(tuple(files))) != len(found):
            raise InputError(f"the files of {hub} ({split}) hold other rows than the data set: load it anew, {other}")
        splits.append(files)
    return _listing(splits[0], splits[1], f"{hub} on the hub")


def _listing(train: Sequence[str], test: Sequence[str], origin: str) -> Listing:
    files = (*train, *test)
    try:
        table = _table(files).select(_COLUMNS)
        images, labels = table["image"], np.asarray(table["label"].to_numpy(), dtype=np.int64)
        keys = keys_of(*_names_and_sizes(images))
    except (KeyError, ValueError, TypeError, OSError) as error:  # Arrow's own errors are of these kinds
        raise InputError(
            f"{origin}: {reason_of(error)} (required are the columns image, of bytes and path, and label, a number)"
        ) from error
    num_classes = int(labels.max()) + 1
    if labels.min() < 0:
        raise InputError(f"{origin} has an image with the label {labels.min()}: labels must be numbers from 0 on")
    return Listing(ArrowImages(files), labels, keys, len(_table(tuple(train))), num_classes)


def _names_and_sizes(images: pa.ChunkedArray) -> tuple[list[str], list[int]]:
    import pyarrow.compute as compute

    paths = compute.struct_field(images, "path").fill_null("").to_pylist()
    sizes = compute.binary_length(compute.struct_field(images, "bytes")).fill_null(-1).to_pylist()
    return [f"{number} {path}" for number, path in enumerate(paths)], sizes


@cache
def _table(files: tuple[str, ...]) -> pa.Table:
    """The rows of Arrow stream files, which stay on the disk until they are looked at."""
    tables = [pa.ipc.open_stream(pa.memory_map(file)).read_all() for file in files]
    return pa.concat_tables(table.select(_COLUMNS) for table in tables)


def _parquet_folder(root: Path) -> Path | None:
    return next((folder for folder in (root, root / "data") if any(folder.glob(_PATTERNS[0][0]))), None)


def _as_arrow(file: Path) -> str:
    """The Arrow file with the rows of a Parquet file, written if it is not there yet."""
    import pyarrow.parquet as parquet

    status = file.stat()
    key = hashlib.blake2b(f"{file.absolute()} {status.st_size} {status.st_mtime_ns}".encode(), digest_size=8)
    cache_folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lightball" / "images"
    path = cache_folder / key.hexdigest() / f"{file.stem}.arrow"
    if path.exists():
        return str(path)
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with parquet.ParquetFile(file) as rows:
            schema = pa.schema([rows.schema_arrow.field(name) for name in _COLUMNS])
            with pa.ipc.new_stream(str(temporary), schema) as arrow:
                for batch in rows.iter_batches(batch_size=256, columns=_COLUMNS):
                    arrow.write_batch(batch.select(_COLUMNS))
        temporary.replace(path)
    except (OSError, ValueError, KeyError) as error:  # Arrow's own errors are of these kinds
        temporary.unlink(missing_ok=True)
        raise InputError(
            f"cannot copy {str(file)!r}, columns image and label, to {str(path.parent)!r}: {reason_of(error)} (set "
            "XDG_CACHE_HOME to a folder with space for its images)"
        ) from error
    return str(path)
