"""The bundled tasks: the data and their splits, the models and their sizes."""

from __future__ import annotations

import pytest
import torch
from sklearn.datasets import load_digits

from lightball.oracles import build
from lightball.workloads import Data, Workload, load
from lightball.workloads.digits import _splits, digits, digits_conv

SPLITS = ("train", "validation", "test")


def splits(workload: Workload) -> list[Data]:
    return [getattr(workload, name) for name in SPLITS]


def test_every_example_is_in_exactly_one_split() -> None:
    inputs, targets = load_digits(return_X_y=True)
    original = sorted((*row, y) for row, y in zip((inputs / 16).tolist(), targets.tolist(), strict=True))
    parts = [
        (*row, y)
        for data in splits(digits())
        for row, y in zip(data.inputs.tolist(), data.targets.tolist(), strict=True)
    ]
    assert len(parts) == 1797
    assert sorted(parts) == original
    assert len(set(parts)) == 1797  # no image is there twice, so the splits are disjoint


def test_sizes_and_types() -> None:
    assert [len(data) for data in splits(digits())] == [1078, 359, 360]
    for data in splits(digits()):
        assert data.inputs.shape[1:] == (64,)
        assert (data.inputs.dtype, data.targets.dtype) == (torch.float32, torch.int64)
        assert (data.inputs.min(), data.inputs.max()) == (0, 1)


def test_stratified() -> None:
    """Every digit has its share of each split, to within rounding."""
    data = splits(digits())
    counts = torch.stack([d.targets.bincount(minlength=10) for d in data]).double()
    expected = counts.sum(dim=0) * torch.tensor([[len(d)] for d in data]) / 1797
    assert (counts - expected).abs().max() <= 1.5


def test_the_same_every_time() -> None:
    before = splits(digits())
    _splits.cache_clear()
    torch.manual_seed(99)
    for a, b in zip(before, splits(digits()), strict=True):
        assert torch.equal(a.inputs, b.inputs)
        assert torch.equal(a.targets, b.targets)


def test_the_convolutional_task_has_the_same_examples_as_images() -> None:
    for flat, image in zip(splits(digits()), splits(digits_conv()), strict=True):
        assert image.inputs.shape[1:] == (1, 8, 8)
        assert torch.equal(flat.inputs, image.inputs.flatten(1))
        assert torch.equal(flat.targets, image.targets)


@pytest.mark.parametrize(("make", "count"), [(digits, 9_610), (digits_conv, 10_026)])
def test_parameters_are_as_many_as_documented(make, count: int) -> None:  # type: ignore[no-untyped-def]
    assert sum(p.numel() for p in make().model().parameters()) == count
    assert f"{count:,} parameters" in make.__doc__


def test_weights_follow_the_seed_alone() -> None:
    for task in (digits(), digits_conv()):
        a, b, c = (build(task.model, seed).state_dict() for seed in (1, 1, 2))
        assert all(torch.equal(a[name], b[name]) for name in a)
        assert not all(torch.equal(a[name], c[name]) for name in a)


@pytest.mark.parametrize("name", ["digits", "digits-conv"])
def test_found_by_name(name: str) -> None:
    assert load(name).name == name
