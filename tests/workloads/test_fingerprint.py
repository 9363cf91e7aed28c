"""A fingerprint follows everything that a workload computes, and nothing else; measuring leaves no trace."""

from __future__ import annotations

import random
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from lightball.errors import InputError
from lightball.workloads import Data, Workload, accuracy, check, cross_entropy, fingerprint, identity, load

DRAW = torch.Generator().manual_seed(0)
DATA = Data(torch.randn(64, 3, generator=DRAW), torch.arange(64) % 2)
GOOD = Workload("good", lambda: nn.Linear(3, 2), DATA, DATA, DATA)


def deep(p: float = 0.3, momentum: float = 0.1) -> nn.Module:
    return nn.Sequential(
        nn.Linear(3, 8), nn.BatchNorm1d(8, momentum=momentum), nn.Tanh(), nn.Dropout(p), nn.Linear(8, 2)
    )


DEEP = replace(GOOD, model=deep)


def half_detached(outputs: Tensor, targets: Tensor) -> Tensor:
    """The values of cross-entropy with half its gradient."""
    return (cross_entropy(outputs, targets) + cross_entropy(outputs.detach(), targets)) / 2


def bits(value: Any) -> Any:
    return value.numpy().tobytes() if isinstance(value, Tensor) else value


def trace_of(model: nn.Module) -> list[Any]:
    """All that measuring could change."""
    generators = [torch.get_rng_state(), random.getstate(), str(np.random.get_state())]  # noqa: NPY002
    state = [*model.parameters(), *model.buffers(), *(p.grad for p in model.parameters())]
    around = [torch.get_num_threads(), torch.is_grad_enabled(), [module.training for module in model.modules()]]
    return [bits(x.detach() if isinstance(x, Tensor) else x) for x in (*generators, *state, *around)]


class TestMeasuringChangesNothing:
    @pytest.mark.parametrize("together", [True, False])
    @pytest.mark.parametrize("make", [deep, lambda: nn.Linear(3, 2)])
    @pytest.mark.parametrize("measure", [fingerprint, check])
    def test_of_one_object(self, make: Callable[[], nn.Module], measure: Any, together: bool) -> None:
        model = make()
        model[0].eval() if isinstance(model, nn.Sequential) else None
        model(DATA.inputs).sum().backward()
        before, data = trace_of(model), deepcopy(DATA)
        try:
            measure(replace(GOOD, model=lambda: model), together)
        except InputError:
            assert measure is check
            assert together
        assert trace_of(model) == before
        assert torch.equal(data.inputs, DATA.inputs)

    def test_of_a_shared_part(self) -> None:
        shared = nn.BatchNorm1d(3)
        before = trace_of(shared)
        fingerprint(replace(GOOD, model=lambda: nn.Sequential(shared, nn.Linear(3, 2))), together=False)
        assert trace_of(shared) == before

    def test_after_an_error(self) -> None:
        def fails(outputs: Tensor, targets: Tensor) -> Tensor:
            raise RuntimeError("no")

        model, threads = deep(), torch.get_num_threads()
        try:
            torch.set_num_threads(2)
            before = trace_of(model)
            with pytest.raises(InputError, match=r"fails on the training data: no$"):
                fingerprint(replace(GOOD, model=lambda: model, loss=fails), together=False)
            assert trace_of(model) == before
        finally:
            torch.set_num_threads(threads)

    def test_a_model_that_cannot_be_copied_is_made_again(self) -> None:
        class Uncopied(nn.Linear):
            def __deepcopy__(self, memo: object) -> nn.Module:
                raise RuntimeError("one only")

        once = Uncopied(3, 2)
        assert fingerprint(replace(GOOD, model=partial(Uncopied, 3, 2)), together=False)
        with pytest.raises(InputError, match=r"^the model cannot be copied: one only \(let model\(\) make all parts"):
            fingerprint(replace(GOOD, model=lambda: once), together=False)


class TestTrainedAlone:
    @pytest.mark.parametrize(
        "change",
        [
            {"model": partial(deep, p=0.0)},
            {"model": partial(deep, p=0.9)},
            {"model": partial(deep, momentum=0.2)},
            {"loss": lambda o, t: 1.001 * cross_entropy(o, t)},
            {"loss": half_detached},
            {"metric": lambda o, t: -cross_entropy(o, t)},
        ],
    )
    def test_follows_what_training_does(self, change: dict[str, Any]) -> None:
        assert fingerprint(replace(DEEP, **change), together=False) != fingerprint(DEEP, together=False)

    def test_a_large_constant_hides_no_batch_statistics(self) -> None:
        def masked(momentum: float) -> nn.Module:
            model = deep(momentum=momentum)
            model.register_buffer("mask", torch.tensor([-torch.inf, 1e30]))
            return model

        one, other = (replace(GOOD, model=partial(masked, momentum)) for momentum in (0.1, 0.2))
        assert fingerprint(one, together=False) != fingerprint(other, together=False)

    def test_only_the_first_256_examples_are_computed(self) -> None:
        seen: list[int] = []

        def loss(outputs: Tensor, targets: Tensor) -> Tensor:
            seen.append(len(targets))
            return cross_entropy(outputs, targets)

        many = Data(DATA.inputs.repeat(8, 1), DATA.targets.repeat(8))
        fingerprint(replace(DEEP, train=many, loss=loss), together=False)
        assert sum(seen) == 256 + 64

    def test_what_fails_in_train_mode_only_is_one_line(self) -> None:
        class Moody(nn.Linear):
            def forward(self, x: Tensor) -> Tensor:
                if self.training:
                    raise ValueError("not\ntoday")
                return super().forward(x)

        message = "^the model or the loss fails on the first 64 training examples in train mode: not$"
        with pytest.raises(InputError, match=message):
            fingerprint(replace(GOOD, model=lambda: Moody(3, 2)), together=False)

    def test_what_a_model_draws_from_elsewhere_is_seeded(self) -> None:
        class Depth(nn.Linear):
            def forward(self, x: Tensor) -> Tensor:
                return super().forward(x) * random.random() * float(np.random.rand())  # noqa: NPY002

        workload = replace(GOOD, model=lambda: Depth(3, 2))
        assert fingerprint(workload, together=False) == fingerprint(workload, together=False)


class TestIsTheSame:
    @pytest.mark.parametrize("together", [True, False])
    @pytest.mark.parametrize("task", ["digits", "digits-conv", "deep"])
    def test_at_any_number_of_threads(self, task: str, together: bool) -> None:
        wide = Data(torch.randn(300, 3, generator=torch.Generator().manual_seed(1)), torch.arange(300) % 2)
        workload = replace(DEEP, train=wide) if task == "deep" else load(task)
        before = torch.get_num_threads()
        computed: set[int] = set()

        def loss(outputs: Tensor, targets: Tensor) -> Tensor:
            computed.add(torch.get_num_threads())
            return cross_entropy(outputs, targets)

        found = set()
        try:
            for threads in (1, 2):
                torch.set_num_threads(threads)
                found.add(fingerprint(replace(workload, loss=loss), together))
                assert torch.get_num_threads() == threads
        finally:
            torch.set_num_threads(before)
        assert len(found) == 1
        assert computed == {1}

    @pytest.mark.parametrize("together", [True, False])
    def test_where_the_last_bits_differ(self, together: bool) -> None:
        """As on another machine: losses and gradients off by some units in the last place, in each example."""

        def noisy(outputs: Tensor, targets: Tensor) -> Tensor:
            sign = torch.arange(len(targets)) % 3 - 1
            return cross_entropy(outputs, targets) * (1 + 2e-7 * sign)

        task = load("digits")
        assert fingerprint(replace(task, loss=noisy), together) == fingerprint(task, together)

    def test_where_a_mean_is_nothing_but_rounding(self) -> None:
        def centred(noise: float) -> Callable[[Tensor, Tensor], Tensor]:
            return lambda o, t: torch.where(torch.arange(len(t)) % 2 == 0, 1.0, -1.0 + noise)

        prints = {fingerprint(replace(GOOD, metric=centred(noise))) for noise in (0.0, 1e-7, 3e-7)}
        assert len(prints) == 1

    def test_around_it_gradients_may_be_off(self) -> None:
        expected = fingerprint(DEEP, together=False)
        for around in (torch.no_grad(), torch.inference_mode(), torch.autocast("cpu", torch.bfloat16)):
            with around:
                assert fingerprint(DEEP, together=False) == expected


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
            {"loss": half_detached},  # the same losses, another gradient
        ],
    )
    def test_follows_weights_architecture_loss_and_metric(self, parts: dict[str, Any]) -> None:
        assert fingerprint(replace(GOOD, **parts)) != fingerprint(GOOD)

    def test_sees_metrics_that_differ_on_some_examples_only(self) -> None:
        def lenient(outputs: Tensor, targets: Tensor) -> Tensor:
            correct = accuracy(outputs, targets)
            return torch.where(torch.arange(len(correct)) < 5, correct, torch.ones(()))

        assert fingerprint(replace(GOOD, metric=lenient)) != fingerprint(GOOD)
