"""The canonical convention m' = β m + (1 − β) g, x' = x − η m', and schedules of β."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightball.errors import InputError
from lightball.optim import SGD
from lightball.rules import averaged_schedule, schedules

LR = 0.3
BETAS = [0.0, 0.5, 0.9, 0.0, 0.8, 0.7, 0.0, 0.6]


def beta(k: int) -> float:
    return BETAS[min(k, len(BETAS) - 1)]


def gradients(steps: int) -> list[Tensor]:
    return list(torch.randn(steps, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))


def run(optimizer: torch.optim.Optimizer, p: Tensor, steps: list[Tensor]) -> Tensor:
    for g in steps:
        p.grad = g.clone()
        optimizer.step()
    return p.detach().clone()


def start() -> nn.Parameter:
    return nn.Parameter(torch.ones(3, dtype=torch.float64))


def literal(betas: list[float], steps: list[Tensor]) -> Tensor:
    x, m = torch.ones(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    for b, g in zip(betas, steps, strict=True):
        m = b * m + (1 - b) * g
        x = x - LR * m
    return x


@pytest.mark.parametrize("path", [{}, {"foreach": True}, {"fused": True}])
def test_first_step_is_dampened(path: dict[str, bool]) -> None:
    p = start()
    end = run(SGD([p], lr=LR, momentum=0.9, convention="canonical", **path), p, gradients(5))  # type: ignore[arg-type]
    assert torch.allclose(end, literal([0.9] * 5, gradients(5)), rtol=1e-14)


@pytest.mark.parametrize("path", [{}, {"foreach": True}, {"fused": True}])
def test_schedule_of_momentum_through_zero(path: dict[str, bool]) -> None:
    p = start()
    optimizer = SGD([p], lr=LR, momentum=beta, convention="canonical", **path)  # type: ignore[arg-type]
    end = run(optimizer, p, gradients(len(BETAS)))
    assert torch.allclose(end, literal(BETAS, gradients(len(BETAS))), rtol=1e-14)


def test_total_displacement_is_the_averaged_schedule() -> None:
    p, quiet = start(), [torch.zeros(3, dtype=torch.float64)] * (len(BETAS) - 3)
    impulse = [torch.zeros(3, dtype=torch.float64)] * 2 + [torch.ones(3, dtype=torch.float64)]
    end = run(SGD([p], lr=LR, momentum=beta, convention="canonical"), p, impulse + quiet)
    expected = averaged_schedule([LR] * len(BETAS), BETAS)[2]
    assert torch.allclose(1 - end, torch.full_like(end, expected), rtol=1e-12)


def test_dampening_follows_a_scheduler_that_writes_momentum() -> None:
    p = start()
    optimizer = SGD([p], lr=LR, momentum=0.9, convention="canonical")
    schedule = torch.optim.lr_scheduler.CyclicLR(optimizer, LR, LR, 2, base_momentum=0.5, max_momentum=0.9)
    betas = []
    for g in gradients(6):
        betas.append(optimizer.param_groups[0]["momentum"])
        p.grad = g.clone()
        optimizer.step()
        schedule.step()
    assert len(set(betas)) > 2
    assert torch.allclose(p.detach(), literal(betas, gradients(6)), rtol=1e-14)
    saved = optimizer.state_dict()["param_groups"][0]
    assert saved["dampening"] == saved["momentum"]


def test_torch_convention_with_a_schedule_is_torch_with_the_group_written_by_hand() -> None:
    ours, theirs = start(), start()
    optimizer = torch.optim.SGD([theirs], lr=LR, momentum=0.9)
    for k, g in enumerate(gradients(6)):
        optimizer.param_groups[0]["momentum"] = beta(k + 1)
        theirs.grad = g.clone()
        optimizer.step()
    run(SGD([ours], lr=LR, momentum=lambda k: beta(k + 1)), ours, gradients(6))
    assert torch.equal(ours, theirs)


def test_the_step_of_a_schedule_is_saved_and_pickled() -> None:
    whole, half = start(), start()
    factor = schedules.cosine(8)
    make: dict[str, Any] = {"lr": LR, "momentum": factor_times(factor), "convention": "canonical"}
    end = run(SGD([whole], **make), whole, gradients(6))
    first = SGD([half], **make)
    run(first, half, gradients(6)[:3])
    second = SGD([half], **make)
    second.load_state_dict(first.state_dict())
    copy = pickle.loads(pickle.dumps(second))
    twin = copy.param_groups[0]["params"][0]
    assert torch.equal(run(second, half, gradients(6)[3:]), end)
    assert torch.equal(run(copy, twin, gradients(6)[3:]), end)


class factor_times:  # noqa: N801 - used as a function that pickles
    def __init__(self, factor: schedules.Schedule) -> None:
        self.factor = factor

    def __call__(self, k: int) -> float:
        return 0.9 * self.factor(k)


def test_a_schedule_is_not_in_the_state_dict() -> None:
    optimizer = SGD([start()], momentum=beta)
    assert not any(callable(value) for value in optimizer.state_dict()["param_groups"][0].values())
    assert optimizer.param_groups[0]["momentum_schedule"] is beta


def test_a_schedule_that_leaves_the_range_is_refused_where_it_does() -> None:
    p = start()
    optimizer = SGD([p], momentum=lambda k: 0.5 + 0.3 * k)
    p.grad = torch.ones_like(p)
    optimizer.step()
    with pytest.raises(InputError, match=r"^momentum is 1.1 at step 2 of its schedule; required is 0 ≤ momentum < 1$"):
        optimizer.step()
