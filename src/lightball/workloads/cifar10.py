"""CIFAR-10: 60,000 photographs of 32 × 32 pixels, from Parquet files with PNG images, as on the Hugging Face hub."""

from __future__ import annotations

import io
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from lightball.errors import InputError, reason_of
from lightball.workloads.data_folder import data_folder
from lightball.workloads.image_layers import CropAndFlip, Standardise
from lightball.workloads.resnet import CifarResNet
from lightball.workloads.workload import Data, Workload

if TYPE_CHECKING:
    from jaxtyping import UInt8

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
NUM_VALIDATION = 5_000


def cifar10(data: str | Path | None = None, *, affine: bool = True, frozen_head: bool = False) -> Workload:
    """ResNet-32 on CIFAR-10, with crops and mirror images in training.

    The last 5,000 training images are the validation data, as in He et al. 2016; images stay bytes, 180 MB in all.

    Args:
        data: the folder that holds ``cifar10/``, by default what LIGHTBALL_DATA names.
        affine, frozen_head: see :class:`CifarResNet`.

    Raises:
        InputError: the folder is not there or holds something else, or Pillow is not installed.
    """
    folder = data_folder("cifar10", data)
    images = read_split(folder, "train")
    test = read_split(folder, "test")
    if len(images) <= NUM_VALIDATION:
        raise InputError(
            f"{str(folder)!r} has {len(images)} training images, but more than {NUM_VALIDATION:,} are needed"
        )
    held_out = len(images) - NUM_VALIDATION
    return Workload(
        "cifar10",
        lambda: nn.Sequential(
            CropAndFlip(), Standardise(MEAN, STD), CifarResNet(32, affine=affine, frozen_head=frozen_head)
        ),
        Data(images.inputs[:held_out], images.targets[:held_out]),
        Data(images.inputs[held_out:], images.targets[held_out:]),
        test,
    )


@cache
def read_split(folder: Path, split: str) -> Data:
    """The images, bytes ``[example, 3, 32, 32]``, and labels of the files ``split-*.parquet``, in their order.

    Raises:
        InputError: there is none, or one of them is not as expected: names it, and the row of a broken image.
    """
    import pyarrow.parquet as parquet

    files = sorted(folder.glob(f"{split}-*.parquet"))
    if not files:
        raise InputError(f"{str(folder)!r} holds no file {split}-*.parquet, where the images of CIFAR-10 should be")
    images, labels = [], []
    for file in files:
        try:
            table = parquet.read_table(file, columns=["img", "label"])
        except (OSError, ValueError) as error:
            raise InputError(f"cannot read {str(file)!r} with columns img and label: {reason_of(error)}") from error
        for row, value in enumerate(table["img"].to_pylist()):
            images.append(_pixels(value["bytes"], file, row))
        labels.append(table["label"].to_numpy())
    return Data(
        torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous(), torch.from_numpy(np.concatenate(labels))
    )


def _pixels(content: bytes, file: Path, row: int) -> UInt8[np.ndarray, "32 32 3"]:
    try:
        from PIL import Image
    except ImportError as error:
        raise InputError("images need Pillow: pip install 'lightball[images]'") from error
    try:
        with Image.open(io.BytesIO(content)) as image:
            pixels = np.asarray(image.convert("RGB"))
    except (OSError, ValueError) as error:
        raise InputError(f"the image in row {row} of {str(file)!r} cannot be decoded: {reason_of(error)}") from error
    if pixels.shape != (32, 32, 3):
        raise InputError(
            f"the image in row {row} of {str(file)!r} has {pixels.shape[:2]} pixels, but must have 32 × 32"
        )
    return pixels
