"""One line each: functions of a user that fail or cannot be traced, and rates that the parameters' type rounds away."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from lightball.dynamics import Arm, coordinates, simulate
from lightball.errors import InputError
from lightball.oracles import FunctionOracle, Quadratic

X = coordinates(2)


def sample(num_replicas: int, generator: torch.Generator) -> Tensor:
    return torch.randn(num_replicas, 2, generator=generator)


def bowl(x: Tensor) -> Tensor:
    return x.square().sum(dim=1)


def refused(oracle: object, arm: Arm = Arm(0.1), num_steps: int = 4) -> str:  # noqa: B008
    with pytest.raises(InputError) as caught:
        simulate(oracle, {"a": arm}, num_steps, 10, X)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    "loss",
    [
        lambda x: bowl(x) if x.sum() > 0 else -bowl(x),
        lambda x: bowl(x) * float(x.mean()),
        lambda x: bowl(x) * x.mean().item(),
    ],
    ids=["if", "float", "item"],
)
@pytest.mark.filterwarnings("ignore:Converting a tensor")
def test_a_loss_that_reads_values_is_told_what_to_write(loss: Callable[[Tensor], Tensor]) -> None:
    message = refused(FunctionOracle(loss, sample, torch.ones(2)))
    assert message.startswith("a step of FunctionOracle cannot be traced (it depends on values of tensors): write its ")
    assert "torch.where(condition, a, b) chooses for each replica" in message


def test_a_noise_that_reads_values_is_too() -> None:
    oracle = FunctionOracle(bowl, sample, torch.ones(2), noise=lambda x, z: z if x.sum() > 0 else 2 * z)
    assert "cannot be traced (it depends on values of tensors)" in refused(oracle)


def test_a_noise_that_fails_is_named_with_its_error() -> None:
    def noise(x: Tensor, z: Tensor) -> Tensor:
        if len(x) > 2:
            raise KeyError("scale")
        return z

    message = refused(FunctionOracle(bowl, sample, torch.ones(2), noise=noise))
    assert message.startswith("the noisy gradient of FunctionOracle failed with KeyError: 'scale'; required are a loss")


def test_a_draw_that_fails_is_named_with_its_error() -> None:
    class Empty(Quadratic):
        def draw(self, num_replicas: int, generator: torch.Generator) -> Tensor:
            raise ValueError("nothing left to draw")

    message = refused(Empty(1.0, 1.0, torch.ones(2)))
    assert message.startswith("the draw of Empty failed with ValueError: nothing left to draw; required are samples")


def test_an_observable_that_fails_is_named_with_its_error() -> None:
    oracle = Quadratic(1.0, 1.0, torch.ones(2))
    with pytest.raises(InputError, match=r"observable 'w' failed with KeyError: 'w'; .* oracle's parameters \(x\)$"):
        simulate(oracle, {"a": Arm(0.1)}, 4, 10, {"w": lambda x, m: x["w"]})


@pytest.mark.parametrize(
    ("arm", "message"),
    [
        (
            Arm(0.1, 1 - 1e-8),
            "momentum of arm 'a' is 0.99999999, which float32, the type of the oracle's parameters, rou",
        ),
        (Arm(0.1, [0.5, 0.9, 1 - 1e-9, 0.5]), "momentum of arm 'a' is 0.999999999, which float32"),
        (
            Arm(1e-50),
            "effective_lr of arm 'a' is 1e-50, which float32, the type of the oracle's parameters, rounds to 0",
        ),
        (
            Arm(1e39),
            "effective_lr of arm 'a' is 1e+39, which float32, the type of the oracle's parameters, rounds to i",
        ),
    ],
)
def test_what_float32_rounds_away_is_refused_and_float64_holds_it(arm: Arm, message: str) -> None:
    said = refused(Quadratic(1.0, 1.0, torch.ones(2)), arm)
    assert said.startswith(message)
    assert said.endswith("build the oracle from an x0 of type float64")
    simulate(Quadratic(1.0, 1.0, torch.ones(2).double()), {"a": arm}, 4, 10, X)


def test_what_is_zero_by_choice_stays_allowed() -> None:
    moments = simulate(Quadratic(1.0, 1.0, torch.ones(2)), {"a": Arm([0.0, 0.1], 0.0)}, 2, 10, X)
    assert np.array_equal(moments.mean[0, 1], np.ones(2))
    assert (moments.mean[0, 2] != 1).all()
