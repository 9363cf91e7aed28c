"""Coefficients and norms against torch's own clipping, shared memory, and the refusals."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from lightball.errors import InputError
from lightball.optim.clipping import clip_coefficient, clipped, global_norm, norm_of, require_clipping


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=50, deadline=None, derandomize=True)
@given(
    max_norm=st.floats(1e-3, 1e3),
    sizes=st.lists(st.integers(1, 30), min_size=1, max_size=5),
    seed=st.integers(0, 2**31),
)
def test_global_clipping_is_torchs_to_the_bit(max_norm: float, sizes: list[int], seed: int) -> None:
    parameters = [nn.Parameter(torch.zeros(size)) for size in sizes]
    for i, parameter in enumerate(parameters):
        parameter.grad = noise(parameter.numel(), seed=seed + i)
    gradients = [parameter.grad.clone() for parameter in parameters]
    norm = global_norm(norm_of(g) for g in gradients)
    assert torch.equal(norm, torch.nn.utils.clip_grad_norm_(parameters, max_norm, foreach=False))
    ours = [clipped(g, clip_coefficient(norm, max_norm)) for g in gradients]
    assert all(torch.equal(g, parameter.grad) for g, parameter in zip(ours, parameters, strict=True))


def test_clips_in_place_what_nobody_shares() -> None:
    gradient = noise(10)
    assert clipped(gradient, torch.tensor(0.5)).data_ptr() == gradient.data_ptr()


def test_leaves_shared_memory_as_it_is() -> None:
    gradient = noise(10)
    before, view = gradient.clone(), gradient.view(2, 5)
    half = clipped(gradient, torch.tensor(0.5))
    assert torch.equal(half, before / 2)
    assert torch.equal(view.flatten(), before)


def test_without_torchs_count_nothing_is_overwritten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch._C, "_storage_Use_Count")
    gradient = noise(10)
    before = gradient.clone()
    assert torch.equal(clipped(gradient, torch.tensor(0.5)), before / 2)
    assert torch.equal(gradient, before)


def test_autograd_does_share_memory_and_torch_clips_it_twice() -> None:
    """Why `clipped` looks: if this fails, autograd has changed and the look may go."""
    a, b = nn.Parameter(torch.ones(20, 1)), nn.Parameter(torch.ones(1, 20))
    (a.view(-1) + b.view(-1)).mul(torch.ones(20)).sum().backward()
    assert a.grad is not None
    assert b.grad is not None
    assert a.grad.data_ptr() == b.grad.data_ptr()
    torch.nn.utils.clip_grad_norm_([a, b], 1.0)
    assert global_norm([norm_of(a.grad), norm_of(b.grad)]) < 0.2  # asked for was 1


def test_dtype_stays_and_the_norm_is_float32_at_least() -> None:
    scalar = torch.tensor(3.0, dtype=torch.bfloat16)
    assert clipped(scalar.view(()), torch.tensor(0.5)).dtype == torch.bfloat16
    assert norm_of(scalar).dtype == torch.float32
    assert norm_of(scalar.double()).dtype == torch.float64


def test_the_norm_of_nothing_is_zero() -> None:
    assert global_norm([]) == 0


@pytest.mark.parametrize(("norm", "coefficient"), [(math.inf, 0.0), (0.0, 1.0), (math.nan, math.nan)])
def test_odd_norms(norm: float, coefficient: float) -> None:
    assert clip_coefficient(torch.tensor(norm), 1.0).item() == pytest.approx(coefficient, nan_ok=True)


@pytest.mark.parametrize(
    ("max_norm", "shown"), [(0.0, "0"), (-1.0, "-1"), (math.inf, "inf"), (math.nan, "nan"), ("1", "'1'")]
)
def test_max_norm_out_of_range(max_norm: Any, shown: str) -> None:
    with pytest.raises(InputError, match=f"^max_norm is {shown}; required is a finite number > 0"):
        require_clipping(max_norm, "parameter", False)


@pytest.mark.parametrize(
    ("clipping", "in_backward", "message"),
    [
        ("global", True, "clipping is 'global' with in_backward=True.*use 'previous'.*or 'exact'"),
        ("previous", False, "clipping is 'previous' without in_backward=True.*use 'global'"),
        ("exact", False, "clipping is 'exact' without in_backward=True.*use 'global'"),
        ("total", False, "'total'; valid are parameter, global, and with in_backward=True parameter, previous, exact"),
        ("total", True, "'total'; valid are parameter, global, and with in_backward=True parameter, previous, exact"),
    ],
)
def test_ways_that_do_not_go_together(clipping: str, in_backward: bool, message: str) -> None:
    with pytest.raises(InputError, match=message):
        require_clipping(1.0, clipping, in_backward)


def test_sparse_gradients_are_refused() -> None:
    with pytest.raises(InputError, match="a gradient is sparse, which cannot be clipped; use sparse=False"):
        norm_of(torch.eye(3).to_sparse())
