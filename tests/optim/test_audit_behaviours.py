"""What optimizers of others have been seen to do, in a few lines each: ignored buffers, signs, averages, noise."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightball.optim.auditing import Audited, audit, audit_text


def params() -> list[nn.Parameter]:
    return list(nn.Sequential(nn.Linear(20, 10), nn.Linear(10, 1)).parameters())


def one(optimizer: object) -> Audited:
    (found,) = audit(optimizer)
    return found


class ForeachIgnoresItsBuffer(torch.optim.Optimizer):
    """SGD with decoupled decay, whose foreach path fills the buffers and moves by the gradients."""

    def __init__(self, params: Any, foreach: bool) -> None:
        super().__init__(params, {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01, "foreach": foreach})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            ps = group["params"]
            buffers = [self.state[p].setdefault("momentum_buffer", torch.zeros_like(p)) for p in ps]
            torch._foreach_mul_(ps, 1 - group["lr"] * group["weight_decay"])
            torch._foreach_mul_(buffers, group["momentum"])
            torch._foreach_add_(buffers, [p.grad for p in ps])
            torch._foreach_add_(ps, [p.grad for p in ps] if group["foreach"] else buffers, alpha=-group["lr"])


def test_a_foreach_path_that_ignores_its_buffer() -> None:
    right, wrong = (one(ForeachIgnoresItsBuffer(params(), foreach)) for foreach in (False, True))
    assert (right.family, right.momentum, right.decoupled) == ("sgdm", pytest.approx(0.9), True)
    assert (wrong.family, wrong.momentum_active, wrong.effective_lr) == ("sgd", False, pytest.approx(0.1))
    assert "the group says momentum 0.9, but its steps have none" in wrong.notes


class SignOfAMixture(torch.optim.Optimizer):
    """x ← x − lr (sign(β₁ m + (1 − β₁) g) + λ x), m ← β₂ m + (1 − β₂) g."""

    def __init__(self, params: Any) -> None:
        super().__init__(params, {"lr": 0.01, "weight_decay": 0.1, "betas": (0.9, 0.99)})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            first, second = group["betas"]
            for p in group["params"]:
                m = self.state[p].setdefault("exp_avg", torch.zeros_like(p))
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.sub_(torch.lerp(p.grad, m, first).sign(), alpha=group["lr"])
                m.lerp_(p.grad, 1 - second)


def test_a_sign_method() -> None:
    found = one(SignOfAMixture(params()))
    assert (found.family, found.nonlinearity, found.momentum_active) == ("not linear", "sign", True)
    assert (found.decoupled, found.weight_decay) == (True, pytest.approx(0.1))


class Averaging(torch.optim.Optimizer):
    """Gradients at y = (1 − β) z + β x, where z makes the steps and x is its mean; weights are y in training only."""

    def __init__(self, params: Any) -> None:
        super().__init__(params, {"lr": 1.0, "beta": 0.9, "k": 0})
        self.training = False

    def train(self) -> None:
        self.training = True

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        if not self.training:
            raise RuntimeError("call train() before step()")
        for group in self.param_groups:
            group["k"] += 1
            for p in group["params"]:
                z = self.state[p].setdefault("z", p.clone())
                x = (p - (1 - group["beta"]) * z) / group["beta"]
                z.sub_(p.grad, alpha=group["lr"])
                x.lerp_(z, 1 / group["k"])
                p.copy_(torch.lerp(z, x, group["beta"]))


def test_averaging_that_steps_in_train_mode_only() -> None:
    optimizer = Averaging(params())
    found = one(optimizer)
    assert (found.family, found.nonlinearity, found.momentum_active) == ("linear, other", None, True)
    assert "the same gradient has another effect at a later step" in found.notes
    assert not optimizer.training


class PrimedWithTheWeights(torch.optim.Optimizer):
    def __init__(self, params: Any) -> None:
        super().__init__(params, {"lr": 0.1, "momentum": 0.9})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                buffer = self.state[p].setdefault("momentum_buffer", p.clone())
                p.sub_(buffer.mul_(group["momentum"]).add_(p.grad), alpha=group["lr"])


def test_a_buffer_that_begins_as_the_weights() -> None:
    found = one(PrimedWithTheWeights(params()))
    assert (found.family, found.notes[0], found.momentum_active) == ("linear, other", "not a rule of SGD", True)


class Noisy(torch.optim.SGD):
    """Which adds noise of its own to gradients, from torch's generator or one that it holds."""

    generator: torch.Generator | None = None
    size = 1.0

    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            for p in group["params"]:
                noise = torch.empty_like(p).normal_(generator=self.generator)
                p.grad = p.grad + self.size * noise.detach()
        return super().step(closure)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("size", [1e-3, 1.0])
@pytest.mark.parametrize("own", [False, True])
def test_noise_inside_step(momentum: float, size: float, own: bool) -> None:
    optimizer = Noisy(params(), lr=0.1, momentum=momentum)
    optimizer.size = size
    if own:
        optimizer.generator = torch.Generator().manual_seed(3)
    found = one(optimizer)
    assert (found.family, found.nonlinearity) == ("not linear", "random")
    assert found.momentum_active is (momentum > 0)
    assert "random: the same gradients give other steps" in " ".join(audit_text([found]).split())
    if optimizer.generator is not None:
        assert torch.equal(optimizer.generator.get_state(), torch.Generator().manual_seed(3).get_state())


class Rising(torch.optim.SGD):
    """Takes the gradient where the loss is larger: two calls of the closure for a step."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        assert closure is not None
        ps = [p for group in self.param_groups for p in group["params"]]
        with torch.enable_grad():
            closure()
        aside: list[Tensor] = [0.05 * p.grad for p in ps]
        torch._foreach_add_(ps, aside)
        with torch.enable_grad():
            loss = closure()
        torch._foreach_sub_(ps, aside)
        super().step()
        return loss


def test_a_step_that_calls_its_closure_twice_is_said() -> None:
    found = one(Rising(params(), lr=0.1, momentum=0.9))
    assert found.family == "sgdm"
    assert found.notes[0].startswith("step calls its closure 2 times; gradients were the same each time")


class EveryFourth(torch.optim.SGD):
    count = 0

    def step(self, closure: Any = None) -> Any:
        self.count += 1
        return super().step(closure) if self.count % 4 == 0 else None


def test_the_memory_of_a_method_that_waits() -> None:
    for momentum in (0.0, 0.9):
        found = one(EveryFourth(params(), lr=0.1, momentum=momentum))
        assert (found.family, found.momentum_active) == ("linear, other", momentum > 0)
