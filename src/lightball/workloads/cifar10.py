"""CIFAR-10: 60,000 photographs of 32 × 32 pixels, from Parquet files with PNG images, as on the Hugging Face hub."""

from __future__ import annotations

import importlib
import io
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from lightball.errors import InputError, reason_of
from lightball.workloads.data_folder import VARIABLE, data_folder
from lightball.workloads.image_layers import ChannelsLast, CropAndFlip, Standardise
from lightball.workloads.resnet import CifarResNet
from lightball.workloads.workload import Data, Workload

if TYPE_CHECKING:
    import pyarrow as pa
    from jaxtyping import UInt8

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
NUM_VALIDATION = 5_000
HUB = "uoft-cs/cifar10"


def cifar10(
    data: str | Path | None = None,
    *,
    affine: bool = True,
    frozen_head: bool = False,
    depth: int = 32,
    num_train: int | None = None,
    num_validation: int = NUM_VALIDATION,
    num_test: int | None = None,
    channels_last: bool = False,
) -> Workload:
    """ResNet-32 on CIFAR-10, with crops and mirror images in training.

    The last 5,000 training images are the validation data, as in He et al. 2016; images stay bytes, 180 MB in all.

    Args:
        data: the folder that holds ``cifar10/``, by default what LIGHTBALL_DATA names; where neither is given the
            images come from the hub, through ``datasets``.
        affine, frozen_head, depth: see :class:`CifarResNet`.
        num_train: the first so many training images, followed by ``num_validation`` for validation; None: all, of
            which the last are for validation.
        num_test: the first so many test images; None: all.
        channels_last: keep images and filters in the memory format in which GPUs convolve fastest.

    Raises:
        InputError: the folder is not there or holds something else, or fewer images than are asked for, or Pillow is
            not installed.
    """
    for name, count in (("num_train", num_train), ("num_validation", num_validation), ("num_test", num_test)):
        if count is not None and count < 2:
            raise InputError(f"{name} is {count}, but must be a whole number from 2 up")
    root = data or os.environ.get(VARIABLE)
    folder = data_folder("cifar10", root) if root else None
    where = HUB if folder is None else repr(str(folder))
    wanted = None if num_train is None else num_train + num_validation
    images, test = read_split(folder, "train", wanted), read_split(folder, "test", num_test)
    more = num_validation + 1 if wanted is None else wanted
    for split, found, required in (("training", images, more), ("test", test, num_test or 2)):
        if len(found) < required:
            raise InputError(f"{where} has {len(found):,} {split} images, but {required:,} are needed")
    held_out = len(images) - num_validation
    return Workload(
        "cifar10",
        lambda: _model(CifarResNet(depth, affine=affine, frozen_head=frozen_head), channels_last),
        Data(images.inputs[:held_out], images.targets[:held_out]),
        Data(images.inputs[held_out:], images.targets[held_out:]),
        test,
    )


def _model(network: CifarResNet, channels_last: bool) -> nn.Module:
    layers = (CropAndFlip(), Standardise(MEAN, STD))
    if not channels_last:
        return nn.Sequential(*layers, network)
    return nn.Sequential(*layers, ChannelsLast(), network.to(memory_format=torch.channels_last))  # type: ignore[call-overload]


@cache
def read_split(folder: Path | None, split: str, count: int | None = None) -> Data:
    """The images, bytes ``[example, 3, 32, 32]``, and labels of the files ``split-*.parquet``, in their order.

    Args:
        folder: where the files lie; None: they come from the Hugging Face hub.
        count: the first so many, or as many as there are; None: all of them.

    Raises:
        InputError: there is none, or one of them is not as expected: names it, and the row of a broken image.
    """
    images: list[UInt8[np.ndarray, "32 32 3"]] = []
    labels = []
    for origin, table in _from_hub(split) if folder is None else _from_files(folder, split):
        rows = table.slice(0, None if count is None else count - len(images))
        images += [_pixels(value["bytes"], origin, row) for row, value in enumerate(rows["img"].to_pylist())]
        labels.append(rows["label"].to_numpy())
    return Data(
        torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous(), torch.from_numpy(np.concatenate(labels))
    )


def _from_files(folder: Path, split: str) -> Iterator[tuple[str, pa.Table]]:
    import pyarrow.parquet as parquet

    files = sorted(folder.glob(f"{split}-*.parquet"))
    if not files:
        raise InputError(f"{str(folder)!r} holds no file {split}-*.parquet, where the images of CIFAR-10 should be")
    for file in files:
        try:
            table = parquet.read_table(file, columns=["img", "label"])
        except (OSError, ValueError) as error:
            raise InputError(f"cannot read {str(file)!r} with columns img and label: {reason_of(error)}") from error
        yield repr(str(file)), table


def _from_hub(split: str) -> Iterator[tuple[str, pa.Table]]:
    or_else = (
        "or give the folder that holds cifar10/ with its Parquet files as data (--data), or set the environment "
        f"variable {VARIABLE} to the folder that holds cifar10/"
    )
    try:
        datasets: Any = importlib.import_module("datasets")
    except ImportError as error:
        raise InputError(
            f"the images of CIFAR-10 come from the Hugging Face hub, which needs datasets: pip install datasets, "
            f"{or_else}"
        ) from error
    try:
        found = datasets.load_dataset(HUB, split=split).select_columns(["img", "label"]).with_format("arrow")[:]
    except Exception as error:  # of the network, of the hub, of datasets: there is no common kind
        raise InputError(
            f"cannot load {HUB} ({split}) from the Hugging Face hub: {reason_of(error)}; look at the network, {or_else}"
        ) from error
    yield f"{HUB} ({split})", found


def _pixels(content: bytes, origin: str, row: int) -> UInt8[np.ndarray, "32 32 3"]:
    try:
        from PIL import Image
    except ImportError as error:
        raise InputError("images need Pillow: pip install 'lightball[images]'") from error
    try:
        with Image.open(io.BytesIO(content)) as image:
            pixels = np.asarray(image.convert("RGB"))
    except (OSError, ValueError) as error:
        raise InputError(f"the image in row {row} of {origin} cannot be decoded: {reason_of(error)}") from error
    if pixels.shape != (32, 32, 3):
        raise InputError(f"the image in row {row} of {origin} has {pixels.shape[:2]} pixels, but must have 32 × 32")
    return pixels
