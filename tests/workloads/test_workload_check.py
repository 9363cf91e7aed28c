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
from lightball.workloads import Data, Workload, accuracy, check, cross_entropy, fingerprint, identity

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
        assert "cannot be vectorised" in refusal(train=Data(DATA.inputs[:, :2], DATA.targets))
        message = refusal(test=Data(DATA.inputs[:, :2], DATA.targets))
        assert message.startswith("metric(outputs, targets) fails on two test examples: ")


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

    @pytest.mark.parametrize(("value", "shown"), [(float("nan"), "nan"), (float("inf"), "nan")])
    def test_loss_that_is_not_finite_at_the_start(self, value: float, shown: str) -> None:
        message = refusal(train=Data(torch.full((8, 3), value), DATA.targets[:8]))
        assert message.startswith(f"the untrained model's loss is {shown} on two training examples, but must be finite")


class TestMeasuringChangesNothing:
    def test_global_generator(self) -> None:
        torch.manual_seed(3)
        before = torch.get_rng_state()
        check(GOOD)
        fingerprint(GOOD)
        assert torch.equal(before, torch.get_rng_state())

    def test_pretrained_weights_and_their_gradients(self) -> None:
        model = nn.Linear(3, 2)
        before = {name: value.clone() for name, value in model.state_dict().items()}
        workload = replace(GOOD, model=lambda: model)
        check(workload)
        fingerprint(workload)
        assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
        assert all(p.grad is None for p in model.parameters())
        assert model.training


class TestFingerprint:
    def test_is_16_digits_and_stable(self) -> None:
        torch.manual_seed(1)
        first = fingerprint(GOOD)
        torch.manual_seed(2)
        again = Workload("another name", lambda: nn.Linear(3, 2), *[Data(DATA.inputs.clone(), DATA.targets)] * 3)
        assert fingerprint(again) == first
        assert len(first) == 16
        assert int(first, 16) >= 0

    @pytest.mark.parametrize("split", ["train", "validation", "test"])
    @pytest.mark.parametrize("part", ["inputs", "targets"])
    def test_follows_every_single_value(self, split: str, part: str) -> None:
        values = getattr(DATA, part).clone()
        values.view(-1)[-1] += 1
        assert identity(replace(GOOD, **{split: replace(DATA, **{part: values})})) != identity(GOOD)

    def test_a_label_out_of_range_is_one_line(self) -> None:
        labels = DATA.targets.clone()
        labels[-1] = 99
        with pytest.raises(InputError, match=r"^the loss or the metric fails on the training data: .*out of bounds"):
            fingerprint(replace(GOOD, train=replace(DATA, targets=labels)))

    def test_follows_type_shape_and_order(self) -> None:
        changed = [
            replace(DATA, targets=DATA.targets.int().long() * 1.0),
            replace(DATA, inputs=DATA.inputs.flip(0)),
            Data(DATA.inputs[:-1], DATA.targets[:-1]),
        ]
        prints = {fingerprint(replace(GOOD, validation=data)) for data in changed} | {fingerprint(GOOD)}
        assert len(prints) == 4

    @pytest.mark.parametrize(
        "parts",
        [
            {"model": lambda: nn.Linear(3, 2, bias=False)},
            {"model": lambda: nn.Sequential(nn.Linear(3, 2), nn.Tanh())},  # the same weights, another function
            {
                "model": lambda: nn.utils.parametrizations.weight_norm(nn.Linear(3, 2))
            },  # the same function, other parameters
            {"loss": lambda o, t: 2 * cross_entropy(o, t)},
            {"loss": lambda o, t: functional.cross_entropy(o, t, reduction="none", label_smoothing=0.1)},
            {"metric": lambda o, t: 1 - accuracy(o, t)},
        ],
    )
    def test_follows_weights_architecture_loss_and_metric(self, parts: dict[str, Any]) -> None:
        assert fingerprint(replace(GOOD, **parts)) != fingerprint(GOOD)

    def test_sees_metrics_that_differ_on_some_examples_only(self) -> None:
        def lenient(outputs: Tensor, targets: Tensor) -> Tensor:
            correct = accuracy(outputs, targets)
            return torch.where(torch.arange(len(correct)) < 5, correct, torch.ones(()))

        assert fingerprint(replace(GOOD, metric=lenient)) != fingerprint(GOOD)
