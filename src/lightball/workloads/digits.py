"""Handwritten digits: 1,797 real 8 × 8 images that scikit-learn brings along, so that nothing is downloaded."""

from __future__ import annotations

from functools import cache, partial

import torch
from torch import nn

from lightball.workloads.workload import Data, Workload


def digits() -> Workload:
    """The multilayer perceptron 64-128-10 (9,610 parameters)."""
    return Workload("digits", _perceptron, *_splits(image=False))


def digits_conv() -> Workload:
    """A small convolutional net with GroupNorm (10,026 parameters)."""
    return Workload("digits-conv", _convolutional, *_splits(image=True))


def _perceptron() -> nn.Module:
    return nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))


def _convolutional() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.GroupNorm(4, 16),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1),
        nn.GroupNorm(8, 32),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(512, 10),
    )


@cache
def _splits(image: bool) -> tuple[Data, Data, Data]:
    """Train, validation and test (60, 20 and 20 %), stratified, the same on every machine.

    Pixels, 0 to 16 in the data set, are scaled to 0 to 1.
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    inputs, targets = load_digits(return_X_y=True)
    split = partial(train_test_split, random_state=0)
    train, rest, train_targets, rest_targets = split(inputs, targets, test_size=0.4, stratify=targets)
    validation, test, validation_targets, test_targets = split(rest, rest_targets, test_size=0.5, stratify=rest_targets)
    shape = (-1, 1, 8, 8) if image else (-1, 64)

    def data(x, y) -> Data:  # type: ignore[no-untyped-def]
        return Data(torch.from_numpy(x / 16).float().reshape(shape), torch.from_numpy(y).long())

    return data(train, train_targets), data(validation, validation_targets), data(test, test_targets)
