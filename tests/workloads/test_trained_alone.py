"""Models that are trained by themselves: what works is accepted, what fails is one line that says why."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightball.errors import InputError
from lightball.workloads import Data, Workload, check, cross_entropy, fingerprint

DRAW = torch.Generator().manual_seed(0)
INPUTS, TARGETS = torch.randn(64, 6, generator=DRAW), torch.arange(64) % 2
TOKENS = torch.randint(10, (64, 5), generator=DRAW)


def on(inputs: Tensor, targets: Tensor = TARGETS) -> dict[str, Any]:
    return dict.fromkeys(("train", "validation", "test"), Data(inputs, targets))


TASK = Workload("task", lambda: nn.Linear(6, 2), **on(INPUTS))


class Recurrent(nn.Module):
    def __init__(self, layer: type[nn.Module] = nn.LSTM) -> None:
        super().__init__()
        self.recurrent, self.last = layer(2, 4, batch_first=True), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.recurrent(x.reshape(-1, 3, 2))[0][:, -1])


class Spare(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.used, self.spare = nn.Linear(6, 2), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.used(x)


class Gate(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x if x.sum() > 0 else -x)


class Words(nn.Module):
    def __init__(self, sparse: bool = False) -> None:
        super().__init__()
        self.words, self.last = nn.Embedding(10, 4, sparse=sparse), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.words(x).mean(dim=1))


class Large(nn.Linear):
    """Takes batches of at least four in train mode."""

    def forward(self, x: Tensor) -> Tensor:
        if self.training and len(x) < 4:
            raise ValueError("too few")
        return super().forward(x)


def normed() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2))


def overwritten(outputs: Tensor, targets: Tensor) -> Tensor:
    """Changes in place what its gradient needs."""
    powers = outputs.exp()
    losses = powers.sum(dim=1)
    powers.add_(1)
    return losses


def frozen() -> nn.Module:
    model = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2))
    model[0].requires_grad_(False)
    return model


GOOD = {
    "LSTM": {"model": Recurrent},
    "GRU": {"model": lambda: Recurrent(nn.GRU)},
    "BatchNorm1d": {"model": normed},
    "unused": {"model": Spare},
    "frozen": {"model": frozen},
    "control flow": {"model": lambda: Gate(6, 2)},
    "float64": {"model": lambda: normed().double(), **on(INPUTS.double())},
    "float64 LSTM": {"model": lambda: Recurrent().double(), **on(INPUTS.double())},
    "tokens": {"model": Words, **on(TOKENS)},
    "int32 tokens": {"model": lambda: Words(sparse=True), **on(TOKENS.int())},
}


@pytest.mark.parametrize("change", GOOD.values(), ids=GOOD)
def test_accepted(change: dict[str, Any]) -> None:
    workload = replace(TASK, **change)
    assert check(workload, together=False) is workload
    assert fingerprint(workload, together=False) == fingerprint(workload, together=False)


DOUBLE = (
    r"\(the inputs are torch.float64, the weights torch.float32: give inputs.to\(torch.float32\), or make the model"
)
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "float64 inputs": (on(INPUTS.double()), rf"^the model fails on two train examples: .+ {DOUBLE}"),
    "float64 LSTM inputs": (
        {"model": Recurrent, **on(INPUTS.double())},
        rf"^the model fails on two train examples: .+ {DOUBLE}",
    ),
    "float64 validation": (
        {"validation": Data(INPUTS.double(), TARGETS)},
        rf"^the model fails on two validation examples: .+ {DOUBLE}",
    ),
    "float64 weights": (
        {"model": lambda: nn.Linear(6, 2).double()},
        r"the inputs are torch.float32, the weights torch.float64: give inputs.to\(torch.float64\)",
    ),
    "whole numbers": (
        on(torch.ones(64, 6).long()),
        r"the inputs are torch.int64, the weights torch.float32: .+ begin the model with nn.Embedding if they are tok",
    ),
    "tokens as floats": (
        {"model": Words, **on(TOKENS.float())},
        r"\(the inputs are torch.float32, but nn.Embedding takes whole numbers: give inputs.long\(\)\)$",
    ),
    "unknown token": (
        {"model": Words, **on(TOKENS + 10)},
        r"out of range in self \(tokens must be from 0 to 9, nn.Embedding has 10 rows; these are up to 1\d\)$",
    ),
    "small batches": (
        {"model": lambda: Large(6, 2)},
        "^the model fails on two train examples in train mode: too few$",
    ),
    "batch statistics in eval mode": (
        {"model": lambda: nn.Sequential(nn.Linear(6, 2), nn.BatchNorm1d(2, track_running_stats=False))},
        "^the model fails on one train example: Expected more than 1 value per channel",
    ),
    "squeezed": (
        {"loss": lambda o, t: cross_entropy(o, t).squeeze()},
        r"^loss gives shape \(\) for 1 train example, but must give .+ shape \(1,\): .+ and keep the first axis$",
    ),
    "backward": (
        {"loss": overwritten},
        "^the loss has a value but its gradient fails: .*modified by an inplace operation",
    ),
    "detached": (
        {"loss": lambda o, t: cross_entropy(o.detach(), t)},
        "^the loss has no gradient: compute it from the model's outputs, without detach",
    ),
    "gradient": (
        {"loss": lambda o, t: cross_entropy(o, t) + (0 * o[:, 0]).sqrt()},
        "^the gradient of 'weight' is not finite at the initial weights: look at the loss there$",
    ),
    "lazy": (
        {"model": lambda: nn.LazyLinear(2)},
        r"^the model has parameters without a shape yet: call it once on an example inside model\(\)$",
    ),
}


@pytest.mark.parametrize(("change", "message"), BAD.values(), ids=BAD)
def test_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        check(replace(TASK, **change), together=False)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("layer", [nn.LSTM, nn.GRU, nn.RNN])
def test_recurrent_layers_are_unsupported_together(layer: type[nn.Module]) -> None:
    message = (
        rf"^module 'recurrent' \({layer.__name__}\) is of a layer type without a batching rule in torch.func.vmap, "
        "unsupported where many models are trained at once: use another layer; or train each model by itself: "
        "--engine process$"
    )
    with pytest.raises(InputError, match=message):
        check(replace(TASK, model=lambda: Recurrent(layer)))


@pytest.mark.parametrize("name", ["float64 inputs", "squeezed", "gradient", "unknown token", "backward"])
def test_refused_in_one_line_together_too(name: str) -> None:
    change, message = BAD[name]
    with pytest.raises(InputError, match=message):
        check(replace(TASK, **change))
