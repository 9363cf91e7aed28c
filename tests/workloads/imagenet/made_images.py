"""Photographs, real and made up, for the tests of this room."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lightball.workloads import Workload
from lightball.workloads.imagenet import imagenet

Image = pytest.importorskip("PIL.Image")

CLASSES = ("apple", "bear", "cloud", "dune")


def photograph(number: int, width: int = 72, height: int = 54) -> Any:
    """Smooth colours with some grain; the larger part of one colour by ``number`` modulo 4."""
    draw = np.random.default_rng(number)
    rough = Image.fromarray(draw.integers(256, size=(6, 8, 3), dtype=np.uint8)).resize((width, height), Image.BICUBIC)
    pixels = np.asarray(rough) * 0.5 + draw.normal(0, 4, (height, width, 1))
    pixels[..., number % 4 % 3] += 90 if number % 4 < 3 else -40
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def encoded(image: Any, form: str = "JPEG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=form, **options)
    return buffer.getvalue()


def make_folder(root: Path, per_class: int = 30, per_test_class: int = 5) -> None:
    for split, count, start in (("train", per_class, 0), ("val", per_test_class, 10_000)):
        for label, name in enumerate(CLASSES):
            path = root / split / name
            path.mkdir(parents=True)
            for i in range(count):
                (path / f"{name}_{i:03d}.JPEG").write_bytes(encoded(photograph(start + 4 * i + label), quality=90))


def small(folder: Path, **options: Any) -> Workload:
    """A small network on small images, decoded in this process."""
    given = {"size": 32, "depth": 18, "bn_group": 16, "measured": 24, "workers": 0, **options}
    return imagenet(folder, **given)


def pixels(workload: Workload, inputs: Tensor, train: bool = False) -> Tensor:
    """What the first layer makes of inputs, in 0 to 255."""
    torch.manual_seed(0)
    layer = workload.model()[0].train(train)
    return layer(inputs) * layer.standardise.std + layer.standardise.mean
