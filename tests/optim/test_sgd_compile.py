"""`torch.compile` of the step: one graph for a whole run."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from lightball.optim import SGD

torch_dynamo = pytest.importorskip("torch._dynamo")


def run(compiled: bool, options: dict[str, Any], dtype: torch.dtype, tensor_lr: bool) -> tuple[list[Tensor], int]:
    graphs = 0

    def backend(graph: GraphModule, _: list[Tensor]) -> Any:
        nonlocal graphs
        graphs += 1
        return graph.forward

    torch_dynamo.reset()
    torch.manual_seed(0)
    params = [nn.Parameter(torch.randn(4, 3).to(dtype)), nn.Parameter(torch.randn(7).to(dtype))]
    optimizer = SGD(params, lr=torch.tensor(0.1) if tensor_lr else 0.1, **options)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 20) if tensor_lr else None
    step = torch.compile(optimizer.step, backend=backend) if compiled else optimizer.step
    for _ in range(12):
        for p in params:
            p.grad = torch.randn(p.shape).to(dtype)
        step()
        if schedule is not None:
            schedule.step()
        optimizer.zero_grad()
    return [p.detach() for p in params], graphs


@pytest.mark.parametrize("tensor_lr", [True, False])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"momentum": 0.9, "dampening": 0.1, "weight_decay": 0.1},
        {"momentum": 0.9, "foreach": True},
        {"momentum": 0.9, "fused": True, "nesterov": True},
        {"momentum": 0.9, "convention": "canonical", "maximize": True},
        {"momentum": 0.9, "rounding": "kahan"},
        {"rounding": "kahan"},
    ],
)
def test_compiles_once(options: dict[str, Any], tensor_lr: bool) -> None:
    dtype = torch.bfloat16 if "rounding" in options else torch.float32
    compiled, graphs = run(True, options, dtype, tensor_lr)
    plain, none = run(False, options, dtype, tensor_lr)
    assert (graphs, none) == (1, 0)
    assert all(torch.allclose(a, b, rtol=1e-5, atol=1e-6) for a, b in zip(compiled, plain, strict=True))


@pytest.mark.parametrize(
    ("options", "most"),
    [
        ({"rounding": "stochastic"}, 0),
        ({"max_norm": 0.1, "clipping": "global"}, 0),
        ({"momentum": lambda k: 0.9 / (k + 1)}, 1),  # a graph that only reads the changed number
    ],
)
def test_what_a_graph_cannot_hold_runs_as_without(options: dict[str, Any], most: int) -> None:
    compiled, graphs = run(True, options, torch.bfloat16, tensor_lr=True)
    plain, _ = run(False, options, torch.bfloat16, tensor_lr=True)
    assert graphs <= most
    assert all(torch.equal(a, b) for a, b in zip(compiled, plain, strict=True))
