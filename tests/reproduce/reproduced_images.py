"""Small data sets of images in the layouts of the real ones."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
from PIL import Image


def write_cifar10(folder: Path, num_train: int, num_test: int) -> Path:
    """CIFAR-10 of random pixels, whose mean tells the class."""
    (folder / "cifar10").mkdir(parents=True)
    for split, count in (("train", num_train), ("test", num_test)):
        draw = np.random.default_rng(count)
        labels = [i % 10 for i in range(count)]
        images = [_png((draw.integers(100, size=(32, 32, 3)) + 15 * label).astype(np.uint8)) for label in labels]
        parquet.write_table(pa.table({"img": images, "label": labels}), folder / "cifar10" / f"{split}-0.parquet")
    return folder


def write_imagenet(folder: Path, images: np.ndarray, labels: np.ndarray, num_train: int) -> Path:
    """UInt8[image, 3, row, column] as JPEGs in folders of classes, enlarged to twice as many pixels."""
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        place = folder / ("train" if i < num_train else "val") / f"class-{label}"
        place.mkdir(parents=True, exist_ok=True)
        picture = Image.fromarray(image.transpose(1, 2, 0))
        picture.resize((2 * picture.width, 2 * picture.height)).save(place / f"image-{i}.JPEG", quality=90)
    return folder


def _png(pixels: np.ndarray) -> dict[str, bytes | None]:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return {"bytes": buffer.getvalue(), "path": None}
