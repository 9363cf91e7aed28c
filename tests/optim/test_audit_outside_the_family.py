"""What is not SGD's rule is said to be something else, and what an optimizer ignores is said too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightball.errors import InputError
from lightball.optim.auditing import Audited, audit

Update = Callable[[Tensor, Tensor, dict[str, Tensor]], Tensor]


class Made(torch.optim.Optimizer):
    """x ← x + update(x, g, state), with groups that say what they like."""

    def __init__(self, params: Any, update: Update, **says: Any) -> None:
        super().__init__(params, {"lr": 0.1, **says})
        self.update = update

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                p.add_(self.update(p, p.grad, self.state[p]))


def found_of(update: Update, **says: Any) -> Audited:
    (found,) = audit(Made(params(), update, **says))
    return found


def params() -> list[nn.Parameter]:
    return list(nn.Sequential(nn.Linear(20, 10), nn.Linear(10, 1)).parameters())


def buffered(p: Tensor, g: Tensor, state: dict[str, Tensor], start: float = 0.0) -> Tensor:
    state["b"] = 0.9 * state.get("b", start * p.clone()) + g
    return state["b"]


def decoupled(p: Tensor, g: Tensor, state: dict[str, Tensor]) -> Tensor:
    return -0.1 * buffered(p, g, state) - 0.1 * 0.02 * p


def zeroed(p: Tensor, g: Tensor, state: dict[str, Tensor]) -> Tensor:
    move = -0.1 * buffered(p, g, state)
    state["b"].zero_()
    return move


def quasi_hyperbolic(p: Tensor, g: Tensor, state: dict[str, Tensor]) -> Tensor:
    state["b"] = 0.9 * state.get("b", torch.zeros_like(p)) + 0.1 * g
    return -0.1 * (0.3 * g + 0.7 * state["b"])


def two_memories(p: Tensor, g: Tensor, state: dict[str, Tensor]) -> Tensor:
    state["c"] = 0.5 * state.get("c", torch.zeros_like(p)) + g
    return -0.1 * (buffered(p, g, state) + state["c"])


def slowing(p: Tensor, g: Tensor, state: dict[str, Tensor]) -> Tensor:
    state["k"] = state.get("k", torch.zeros(())) + 1
    return -0.1 * g / state["k"]


def layer_wise(p: Tensor, g: Tensor, state: dict[str, Tensor]) -> Tensor:
    return -0.1 * g * p.norm() / g.norm() if p.any() and g.any() else -0.1 * g


def cubic(p: Tensor, g: Tensor, state: dict[str, Tensor]) -> Tensor:
    return -0.1 * g**3


def test_decoupled_decay() -> None:
    found = found_of(decoupled, momentum=0.9, weight_decay=0.02)
    assert (found.family, found.decoupled) == ("sgdm", True)
    assert found.weight_decay == pytest.approx(0.02, rel=1e-6)
    assert found.decay_per_step == pytest.approx(0.002, rel=1e-6)
    assert len(found.notes) == 1


def test_a_buffer_that_step_zeroes_is_no_momentum() -> None:
    found = found_of(zeroed, momentum=0.9, weight_decay=0.1)
    assert (found.family, found.momentum, found.momentum_active) == ("sgd", 0.0, False)
    assert found.notes[:2] == (
        "the group says momentum 0.9, but its steps have none",
        "the group says weight_decay 0.1, but its steps have none",
    )


def test_quasi_hyperbolic_momentum_is_dampened_nesterov() -> None:
    found = found_of(quasi_hyperbolic)
    assert (found.family, found.momentum_active) == ("nesterov", True)
    assert found.effective_lr == pytest.approx(0.1, rel=1e-6)
    assert found.momentum == pytest.approx(0.9, rel=1e-6)


@pytest.mark.parametrize(
    ("update", "memory", "note"),
    [
        (two_memories, True, "not a rule of SGD"),
        (slowing, False, "the same gradient has another effect at a later step"),
        (lambda p, g, state: -0.1 * buffered(p, g, state, start=1.0), True, "not a rule of SGD"),
        (lambda p, g, state: 0 * g, False, "its steps do not move its parameters"),
    ],
)
def test_linear_but_by_another_rule(update: Update, memory: bool, note: str) -> None:
    found = found_of(update, momentum=0.9)
    assert (found.family, found.nonlinearity, found.momentum_active) == ("linear, other", None, memory)
    assert found.effective_lr is None
    assert found.notes[0] == note


@pytest.mark.parametrize(
    ("update", "kind"),
    [(lambda p, g, state: -0.1 * g.sign(), "sign"), (layer_wise, "adaptive"), (cubic, "other")],
)
def test_not_linear(update: Update, kind: str) -> None:
    found = found_of(update)
    assert (found.family, found.nonlinearity, found.effective_lr) == ("not linear", kind, None)


@pytest.mark.parametrize("limit", [lambda g: g.clamp(-1.5, 1.5), lambda g: 1.5 * torch.tanh(g / 1.5)])
def test_elements_that_are_limited(limit: Callable[[Tensor], Tensor]) -> None:
    found = found_of(lambda p, g, state: -0.1 * buffered(p, limit(g), state))
    assert (found.family, found.nonlinearity) == ("sgdm", "clipping")
    assert found.clips_at == pytest.approx(1.5, rel=1e-4)
    assert "each element" in " ".join(found.notes)


ADAPTIVE = {
    "Adam": True,
    "AdamW": True,
    "NAdam": True,
    "RAdam": True,
    "Adamax": True,
    "RMSprop": False,
    "Adagrad": False,
    "Adadelta": False,
    "Adafactor": False,
    "Rprop": False,
}


@pytest.mark.parametrize("name", ADAPTIVE)
def test_adaptive_methods_of_torch(name: str) -> None:
    (found,) = audit(getattr(torch.optim, name)(params(), lr=0.01))
    assert (found.family, found.nonlinearity) == ("not linear", "adaptive")
    assert found.momentum_active is ADAPTIVE[name]


def test_weight_decay_of_adam_and_adamw() -> None:
    (coupled,), (own,) = (
        audit(kind(params(), lr=0.01, weight_decay=0.3)) for kind in (torch.optim.Adam, torch.optim.AdamW)
    )
    assert (coupled.weight_decay, coupled.decoupled) == (None, None)
    assert own.weight_decay == pytest.approx(0.3, rel=1e-6)
    assert own.decoupled is True


def test_muon_and_the_closure_of_lbfgs() -> None:
    (muon,) = audit(torch.optim.Muon([params()[0]], lr=0.01))
    (lbfgs,) = audit(torch.optim.LBFGS(params(), lr=0.01))
    assert (muon.family, muon.nonlinearity) == ("not linear", "adaptive")
    assert lbfgs.family == "not linear"


def test_asgd_changes_in_time() -> None:
    (found,) = audit(torch.optim.ASGD(params(), lr=0.1))
    assert (found.family, found.notes[0]) == ("linear, other", "the same gradient has another effect at a later step")


def test_what_cannot_be_audited_is_refused() -> None:
    with pytest.raises(InputError, match=r"audit got a Linear; required is a torch\.optim\.Optimizer: give that"):
        audit(nn.Linear(1, 1))
    with pytest.raises(
        InputError, match=r"SparseAdam cannot be audited: its step fails .* required is a step that takes"
    ):
        audit(torch.optim.SparseAdam(params()))
    with pytest.raises(InputError, match="SGD has no parameter with elements, and cannot be audited"):
        audit(torch.optim.SGD([nn.Parameter(torch.empty(0))], 0.1))
