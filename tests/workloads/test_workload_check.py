"""What cannot be trained is refused before anything runs, in one line that names the part at fault."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from lightball.errors import InputError
from lightball.workloads import Data, Workload, check, cross_entropy

DRAW = torch.Generator().manual_seed(0)
DATA = Data(torch.randn(64, 3, generator=DRAW), torch.arange(64) % 2)
GOOD = Workload("good", lambda: nn.Linear(3, 2), DATA, DATA, DATA)


def refusal(**parts: Any) -> str:
    with pytest.raises(InputError) as caught:
        check(replace(GOOD, **parts))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_good_workload_is_returned_as_it_is() -> None:
    assert check(GOOD) is GOOD


def test_a_regression_with_its_own_loss_and_metric() -> None:
    data = Data(DATA.inputs, DATA.inputs.sum(dim=1))

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs.squeeze(-1) - targets) ** 2

    check(Workload("line", lambda: nn.Linear(3, 1), data, data, data, loss, lambda o, t: -loss(o, t)))


@pytest.mark.parametrize("value", [None, 3, nn.Linear(3, 2)])
def test_not_a_workload(value: object) -> None:
    with pytest.raises(InputError, match=f"the task is a {type(value).__name__}, but must be a lightball.Workload"):
        check(value)


class TestData:
    def test_not_data(self) -> None:
        message = refusal(validation=(DATA.inputs, DATA.targets))
        assert message == "validation is a tuple, but must be lightball.Data(inputs, targets)"

    def test_not_tensors(self) -> None:
        message = refusal(train=Data(DATA.inputs.numpy(), DATA.targets))  # type: ignore[arg-type]
        assert message.startswith("train.inputs is a ndarray, but must be a torch.Tensor")
        message = refusal(test=Data(DATA.inputs, DATA.targets.tolist()))  # type: ignore[arg-type]
        assert message.startswith("test.targets is a list, but must be a torch.Tensor")

    def test_a_single_number(self) -> None:
        assert refusal(train=Data(DATA.inputs, torch.tensor(1))).startswith("train.targets is a single number")

    def test_unequal_lengths(self) -> None:
        message = refusal(test=Data(DATA.inputs, DATA.targets[:60]))
        assert message.startswith("test has 64 inputs and 60 targets: there must be equally many")

    @pytest.mark.parametrize("size", [0, 1])
    def test_too_few(self, size: int) -> None:
        message = refusal(train=Data(DATA.inputs[:size], DATA.targets[:size]))
        assert message.endswith(f"{size} inputs and {size} targets: there must be equally many, and at least 2")

    def test_inputs_that_the_model_cannot_take(self) -> None:
        for split in ("train", "validation", "test"):
            message = refusal(**{split: Data(DATA.inputs[:, :2], DATA.targets)})
            assert message.startswith(f"the model fails on two {split} examples: mat1 and mat2 shapes cannot be")

    @pytest.mark.parametrize("split", ["train", "validation", "test"])
    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    @pytest.mark.parametrize("together", [True, False])
    def test_inputs_that_are_not_finite(self, split: str, value: float, together: bool) -> None:
        inputs = DATA.inputs.clone()
        inputs[40, 1] = value
        with pytest.raises(InputError, match=rf"^{split}.inputs has values that are not finite .*first in example 40:"):
            check(replace(GOOD, **{split: Data(inputs, DATA.targets)}), together)  # type: ignore[arg-type]


class TestModel:
    @pytest.mark.parametrize("value", [None, 3, "linear"])
    def test_no_module(self, value: object) -> None:
        message = refusal(model=lambda: value)
        assert message == f"model() returned a {type(value).__name__}, but must return a torch.nn.Module"

    def test_a_module_instead_of_a_function(self) -> None:
        message = refusal(model=nn.Linear(3, 2))
        assert message.startswith("model() fails: ")
        assert message.endswith("(model must be a function without arguments that makes one)")

    def test_a_factory_that_fails(self) -> None:
        def model() -> nn.Module:
            raise FileNotFoundError("no weights\nat all")

        assert refusal(model=model).startswith("model() fails: no weights (")

    def test_no_trainable_parameter(self) -> None:
        message = refusal(model=lambda: nn.Linear(3, 2).requires_grad_(False))
        assert message == "the model has no trainable parameter: at least one must have requires_grad=True"
        assert "no trainable parameter" in refusal(model=nn.Flatten)

    def test_batch_norm_is_named(self) -> None:
        message = refusal(model=lambda: nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)))
        assert message.startswith("module '1' (BatchNorm1d) normalises by the batch")
        assert "use GroupNorm" in message

    def test_dropout_is_named(self) -> None:
        message = refusal(model=lambda: nn.Sequential(nn.Dropout(0.1), nn.Linear(3, 2)))
        assert message.startswith("module '0' (Dropout, p=0.1) draws from one generator")

    def test_control_flow_on_values_is_named(self) -> None:
        class Gate(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                return x if x.sum() > 0 else -x

        message = refusal(model=lambda: nn.Sequential(nn.Linear(3, 2), Gate()))
        assert message.startswith("module '1' (Gate) cannot be vectorised over models: ")

    def test_a_parameter_without_influence_is_named(self) -> None:
        class Spare(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.used, self.spare = nn.Linear(3, 2), nn.Linear(3, 2)

            def forward(self, x: Tensor) -> Tensor:
                return self.used(x)  # type: ignore[no-any-return]

        message = refusal(model=Spare)
        assert message.startswith("the loss does not depend on the parameter 'spare.weight': leave it out, or freeze")

    def test_a_detached_loss(self) -> None:
        message = refusal(loss=lambda o, t: cross_entropy(o.detach(), t))
        assert message.startswith("the loss does not depend on the parameter 'weight'")

    def test_gradients_that_are_not_finite(self) -> None:
        class Root(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.scale = nn.Parameter(torch.zeros(3))
                self.last = nn.Linear(3, 2)

            def forward(self, x: Tensor) -> Tensor:
                return self.last((self.scale.square() * x.square()).sqrt())  # type: ignore[no-any-return]

        assert refusal(model=Root).startswith("the gradient of 'scale' is not finite at the initial weights")


class TestLossAndMetric:
    @pytest.mark.parametrize("part", ["loss", "metric"])
    @pytest.mark.parametrize(
        ("fn", "got"),
        [
            (functional.cross_entropy, "shape ()"),  # reduction='mean' is torch's default
            (lambda o, t: o, "shape (2, 2)"),
            (lambda o, t: 0.5, "float"),
        ],
    )
    def test_not_one_number_for_each_example(self, part: str, fn: Callable[..., Any], got: str) -> None:
        message = refusal(**{part: fn})
        assert message.startswith(f"{part} gives {got} for 2 train examples, but must give one number for each")
        assert message.endswith("pass reduction='none'")

    @pytest.mark.parametrize("part", ["loss", "metric"])
    def test_one_that_fails(self, part: str) -> None:
        def fn(outputs: Tensor, targets: Tensor) -> Tensor:
            raise ValueError("wrong\nat length")

        assert refusal(**{part: fn}) == f"{part}(outputs, targets) fails on two train examples: wrong"

    def test_a_metric_without_fractions(self) -> None:
        message = refusal(metric=lambda o, t: o.argmax(dim=-1) == t)
        assert message == "metric gives torch.bool, but must give floating-point numbers: append .float()"

    def test_targets_of_the_wrong_type(self) -> None:
        floats = Data(DATA.inputs, DATA.targets.float())
        assert refusal(train=floats).startswith("loss(outputs, targets) fails on two train examples: ")

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_loss_that_is_not_finite_at_the_start(self, value: float) -> None:
        message = refusal(loss=lambda o, t: cross_entropy(o, t) + value)
        assert message.startswith(f"the untrained model's loss is {value} on two training examples, but must be finite")
