"""What `lightball.optim.SGD` refuses, each in one clear line."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import nn

from lightball.errors import InputError
from lightball.optim import SGD

REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"lr": -0.1}, "lr is -0.1; required is a finite number ≥ 0"),
    ({"lr": float("nan")}, "lr is nan; required is a finite number ≥ 0"),
    ({"lr": torch.tensor([0.1, 0.2])}, "lr is a tensor of shape (2,); required is a number or a tensor of one"),
    ({"lr": torch.tensor(-1.0)}, "lr is -1; required"),
    ({"momentum": 1.0}, "momentum is 1; required is 0 ≤ momentum < 1"),
    ({"momentum": -0.1}, "momentum is -0.1; required is 0 ≤ momentum < 1"),
    ({"momentum": lambda k: 1.5}, "momentum is 1.5 at step 0 of its schedule; required is 0 ≤ momentum < 1"),
    ({"momentum": lambda k: None}, "momentum is None at step 0 of its schedule; required is 0 ≤ momentum < 1"),
    ({"lr": "0.1"}, "lr is '0.1'; required is a number: convert text by float()"),
    ({"lr": None}, "lr is None; required is a number"),
    ({"momentum": "0.9"}, "momentum is '0.9'; required is a number"),
    ({"momentum": None}, "momentum is None; required is a number"),
    ({"weight_decay": "1e-4"}, "weight_decay is '1e-4'; required is a number"),
    ({"max_norm": "1"}, "max_norm is '1'; required is a finite number > 0"),
    ({"dampening": -0.1}, "dampening is -0.1; required is 0 ≤ dampening < 1"),
    ({"weight_decay": -0.1}, "weight_decay is -0.1; required is a finite number ≥ 0"),
    ({"nesterov": True}, "nesterov got momentum 0 and dampening 0; it requires momentum > 0"),
    ({"nesterov": True, "momentum": 0.9, "dampening": 0.1}, "nesterov got momentum 0.9 and dampening 0.1"),
    ({"convention": "keras"}, "unknown convention 'keras'; valid are torch, canonical"),
    ({"convention": "canonical", "momentum": 0.9, "nesterov": True}, "which has no Nesterov form; required is conv"),
    ({"convention": "canonical", "momentum": 0.9, "dampening": 0.1}, "dampening is 0.1 with convention='canonical'"),
    ({"rounding": "up"}, "unknown rounding 'up'; valid are nearest, stochastic, kahan"),
    ({"rounding": "kahan", "fused": True}, "fused=True with rounding='kahan'"),
    ({"rounding": "stochastic", "foreach": True}, "foreach=True with rounding='stochastic'"),
    ({"rounding": "stochastic", "differentiable": True}, "differentiable=True with rounding='stochastic'"),
    ({"seed": -1}, "seed is -1; required is a whole number from 0 to 2^63 − 1"),
    ({"foreach": True, "fused": True}, "foreach=True and fused=True exclude each other"),
    ({"fused": True, "differentiable": True}, "fused=True has no gradient of its own"),
    ({"in_backward": True, "differentiable": True}, "differentiable=True with in_backward=True"),
    ({"in_backward": True, "foreach": True}, "foreach=True with in_backward=True"),
    ({"max_norm": 0.0}, "max_norm is 0; required is a finite number > 0"),
    ({"clipping": "value"}, "unknown clipping 'value'"),
    ({"clipping": "exact"}, "clipping is 'exact' without in_backward=True"),
]


@pytest.mark.parametrize(("options", "text"), REFUSED, ids=[text for _, text in REFUSED])
def test_refused_at_construction(options: dict[str, Any], text: str) -> None:
    with pytest.raises(InputError, match=re.escape(text)) as caught:
        SGD([nn.Parameter(torch.ones(2))], **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("dtype", "options", "text"),
    [
        (torch.complex64, {"fused": True}, "fused=True with a parameter of torch.complex64 on cpu"),
        (torch.complex64, {"rounding": "kahan"}, "a parameter is torch.complex64 with rounding='kahan'"),
    ],
)
def test_refused_for_a_parameter(dtype: torch.dtype, options: dict[str, Any], text: str) -> None:
    with pytest.raises(InputError, match=re.escape(text)):
        SGD([nn.Parameter(torch.ones(2, dtype=dtype))], **options)


def test_fused_where_torch_has_no_kernel() -> None:
    with pytest.raises(InputError, match=r"^fused=True with a parameter of torch.float32 on meta;"):
        SGD([nn.Parameter(torch.ones(2, device="meta"))], fused=True)


@pytest.mark.parametrize("options", [{"momentum": 0.9}, {"weight_decay": 0.1}, {"fused": True}])
def test_sparse_gradients_with_what_is_dense(options: dict[str, Any]) -> None:
    table = nn.Embedding(4, 2, sparse=True)
    optimizer = SGD(table.parameters(), **options)
    table(torch.tensor([1, 3])).sum().backward()
    name, value = next(iter(options.items()))
    with pytest.raises(InputError, match=f"^a sparse gradient came with {name}={value}; sparse gradients go with"):
        optimizer.step()
    assert not optimizer.state_dict()["state"]


@pytest.mark.parametrize("in_one_group", [True, False])
def test_a_refused_sparse_gradient_moves_no_other_parameter(in_one_group: bool) -> None:
    table, head = nn.Embedding(4, 2, sparse=True), nn.Linear(2, 2)
    parts = [[*head.parameters(), *table.parameters()]] if in_one_group else [head.parameters(), table.parameters()]
    optimizer = SGD([{"params": part} for part in parts], momentum=0.9)
    before = head.weight.detach().clone()
    head(table(torch.tensor([1, 3]))).sum().backward()
    with pytest.raises(InputError, match=r"^a sparse gradient came with momentum=0.9"):
        optimizer.step()
    assert torch.equal(head.weight, before)


def test_clipping_sparse_gradients() -> None:
    table = nn.Embedding(4, 2, sparse=True)
    optimizer = SGD(table.parameters(), max_norm=1.0)
    table(torch.tensor([1, 3])).sum().backward()
    with pytest.raises(InputError, match="sparse"):
        optimizer.step()


def test_accumulating_without_in_backward() -> None:
    with pytest.raises(InputError, match=r"^accumulating\(\) is for in_backward=True"):
        SGD([nn.Parameter(torch.ones(2))]).accumulating()
