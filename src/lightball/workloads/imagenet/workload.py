"""Images in files, in classes, as a workload: ImageNet, or any folder of that form."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from lightball.errors import InputError
from lightball.oracles import generator
from lightball.workloads.data_folder import VARIABLE
from lightball.workloads.imagenet.arrow import has_parquet, list_hub, list_parquet
from lightball.workloads.imagenet.decoders import Decoders
from lightball.workloads.imagenet.images import images_of
from lightball.workloads.imagenet.layer import DecodeImages
from lightball.workloads.imagenet.listing import Listing, list_folder
from lightball.workloads.imagenet.network import ResNet, num_blocks
from lightball.workloads.workload import Data, Workload

if TYPE_CHECKING:
    from jaxtyping import Int

_VALIDATION = 10_000
_LEAST = 64  # training images


@dataclass(frozen=True)
class MakeModel:
    """What makes the model: decoding, then a residual network."""

    decoders: Decoders = field(repr=False)  # where images lie, not what they show
    size: int
    max_broken: int
    depth: int
    num_classes: int
    bn_group: int

    def __call__(self) -> nn.Module:
        return nn.Sequential(
            DecodeImages(self.decoders, self.size, self.max_broken), ResNet(self.depth, self.num_classes, self.bn_group)
        )


def imagenet(
    data: str | Path | None = None,
    *,
    hub: str = "ILSVRC/imagenet-1k",
    size: int = 224,
    depth: int = 50,
    bn_group: int = 32,
    num_validation: int | None = None,
    measured: int | None = 50_000,
    workers: int | None = None,
    max_broken: int = 100,
) -> Workload:
    """A residual network on images in files, with random crops and mirror images in training.

    The inputs are numbers of images; the model's first layer decodes, in processes of its own. The process engine
    trains it, in batches of whole groups of ``bn_group``.

    Args:
        data: a folder, or one with a folder ``imagenet``: ``train/<class>/*.JPEG`` and ``val/<class>/*``, or Parquet
            files ``train-*`` and ``validation-*`` as on the hub. By default what LIGHTBALL_DATA names; without either
            the images come from the Hugging Face hub.
        hub: the data set there.
        size: rows and columns that the network sees.
        depth: 50 or 18.
        bn_group: samples that BatchNorm normalises together, a power of 2.
        num_validation: training images that are held out to choose learning rates by, a fixed draw; None: 10,000, and
            a tenth at most. The test data are the folder ``val``.
        measured: training images on which the training loss is measured, a fixed draw; None: all of them.
        workers: processes that decode; None: as many as there are cores, 0: none.
        max_broken: images that may fail to decode, in one run.

    Raises:
        InputError: no such folder or data set, too few images, or a number that cannot be.
    """
    for name, value, least in (("size", size, 32), ("max_broken", max_broken, 0), ("workers", workers, 0)):
        if value is not None and value < least:
            raise InputError(f"{name} is {value}, but must be at least {least}")
    if bn_group < 2 or bn_group & (bn_group - 1):
        raise InputError(f"bn_group is {bn_group}, but must be a power of 2, such as 32")
    num_blocks(depth)
    listing = _listing(data, hub)
    held_out = min(_VALIDATION, listing.num_train // 10) if num_validation is None else num_validation
    left = listing.num_train - held_out
    if held_out < 2 or left < _LEAST:
        raise InputError(
            f"of {listing.num_train} training images {held_out} are held out for validation, but at least 2 must be, "
            f"and {_LEAST} must be left to train on: take more images, or another num_validation"
        )
    if measured is not None and measured < 2:
        raise InputError(f"measured is {measured}, but at least 2 images are needed; None takes all")
    order = torch.randperm(listing.num_train, generator=generator(use="images held out"))
    train, validation = order[held_out:].sort().values, order[:held_out].sort().values
    some = order[held_out:][:measured].sort().values
    test = torch.arange(listing.num_train, len(listing.labels))
    return Workload(
        "imagenet",
        MakeModel(Decoders(images_of(listing), workers), size, max_broken, depth, listing.num_classes, bn_group),
        _data(listing, train),
        _data(listing, validation),
        _data(listing, test),
        measured=_data(listing, some) if len(some) < len(train) else None,
    )


def _data(listing: Listing, numbers: Int[torch.Tensor, "example"]) -> Data:
    keys = torch.from_numpy(np.ascontiguousarray(listing.keys))[numbers]
    return Data(torch.stack([numbers, keys], dim=1), torch.from_numpy(listing.labels)[numbers])


def _listing(data: str | Path | None, hub: str) -> Listing:
    given = data or os.environ.get(VARIABLE)
    if not given:
        return list_hub(hub)
    root = Path(given)
    root = root / "imagenet" if (root / "imagenet").is_dir() else root
    if not root.is_dir():
        raise InputError(f"there is no folder {str(root)!r}: give the folder that holds train/ and val/")
    if has_parquet(root):
        return list_parquet(root)
    if not (root / "train").is_dir():
        raise InputError(
            f"{str(root)!r} has neither train/<class>/*.JPEG nor train-*.parquet: give the folder with the images "
            f"(--data, or {VARIABLE}), or none to load {hub} from the hub"
        )
    return list_folder(root)
