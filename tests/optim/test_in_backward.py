"""In backward against the same optimizer without it: bit for bit, whatever is frozen, tied, accumulated, clipped."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from lightball.optim.sgd import SGD

NUM_STEPS = 3


class Small(nn.Module):
    """An embedding tied to the output layer, a scalar, and two offsets, whose gradients share memory on request."""

    def __init__(self, dtype: torch.dtype = torch.float32, *, sharing: bool = False) -> None:
        super().__init__()
        self.sharing = sharing
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.embedding = nn.Embedding(6, 4)
            self.hidden = nn.Linear(4, 4)
            self.normal = nn.LayerNorm(4)
            self.first, self.second = nn.Parameter(torch.randn(2, 2)), nn.Parameter(torch.randn(4, 1))
            self.scale = nn.Parameter(torch.tensor(1.5))
        self.to(dtype)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.hidden(self.embedding(tokens)) * self.scale
        second = self.second.view(-1) if self.sharing else -self.second.view(-1)
        offset = self.first.view(-1) + second
        return self.normal(x + offset) @ self.embedding.weight.T


def loss_of(model: nn.Module, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    tokens, targets = torch.randint(0, 6, (2, 8), generator=generator)
    return nn.functional.cross_entropy(model(tokens).float(), targets)


def groups_of(model: Small, options: dict[str, Any]) -> list[dict[str, Any]]:
    """Two groups, of which the second has a rate of its own."""
    own = [model.hidden.bias, model.scale]
    others = [p for p in model.parameters() if not any(p is q for q in own)]
    return [{"params": others}, {"params": own, "lr": options["lr"] / 3}]


def train(model: Small, optimizer: SGD, accumulate: int = 1, freeze: dict[str, tuple[int, int]] | None = None) -> None:
    in_backward = optimizer._in_backward is not None
    for k in range(NUM_STEPS):
        for name, (begin, end) in (freeze or {}).items():
            model.get_parameter(name).requires_grad_(not begin <= k < end)

        def closure(k: int = k) -> Tensor:
            optimizer.zero_grad()
            for i in range(accumulate):
                last = i == accumulate - 1
                with optimizer.accumulating() if in_backward and not last else nullcontext():
                    loss = loss_of(model, seed=k * accumulate + i)
                    loss.backward()
            return loss

        loss = optimizer.step(closure)
        assert loss.isfinite()


def assert_equal(a: nn.Module, b: nn.Module) -> None:
    for (name, x), y in zip(a.state_dict().items(), b.state_dict().values(), strict=True):
        assert torch.equal(x, y), name


@st.composite
def options(draw: st.DrawFn) -> dict[str, Any]:
    momentum = draw(st.just(0.0) | st.floats(0.1, 0.99))
    convention = draw(st.sampled_from(["torch", "canonical"]))
    nesterov = momentum > 0 and convention == "torch" and draw(st.booleans())
    dampening = 0.0 if nesterov or convention == "canonical" else draw(st.sampled_from([0.0, 0.5]))
    return {
        "lr": draw(st.floats(1e-3, 0.5)),
        "momentum": momentum,
        "dampening": dampening,
        "nesterov": nesterov,
        "convention": convention,
        "weight_decay": draw(st.sampled_from([0.0, 0.1])),
        "maximize": draw(st.booleans()),
        "fused": draw(st.sampled_from([None, True])),
    }


CLIPPING = st.sampled_from(
    [(None, "parameter", "parameter"), (0.3, "parameter", "parameter"), (0.3, "global", "exact")]
)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    options=options(),
    clipping=CLIPPING,
    accumulate=st.integers(1, 3),
    freeze=st.dictionaries(
        st.sampled_from(["embedding.weight", "hidden.weight", "scale", "first"]),
        st.tuples(st.integers(0, 2), st.integers(1, 5)),
        max_size=3,
    ),
)
def test_bit_equal_to_the_step_after_backward(
    options: dict[str, Any], clipping: tuple[float | None, str, str], accumulate: int, freeze: dict[str, Any]
) -> None:
    max_norm, in_step, in_backward = clipping
    sharing = accumulate == 1  # else torch adds to the shared memory twice
    plain, ours = Small(sharing=sharing), Small(sharing=sharing)
    after = SGD(groups_of(plain, options), **options, max_norm=max_norm, clipping=in_step)  # type: ignore[arg-type]
    for name, (begin, _) in freeze.items():  # some are frozen when the optimizer is made
        ours.get_parameter(name).requires_grad_(begin != 0)
    during = SGD(
        groups_of(ours, options),
        **options,
        max_norm=max_norm,
        clipping=in_backward,  # type: ignore[arg-type]
        in_backward=True,
    )
    train(plain, after, accumulate, freeze)
    train(ours, during, accumulate, freeze)
    assert_equal(plain, ours)


@pytest.mark.parametrize("rounding", ["nearest", "stochastic", "kahan"])
def test_bit_equal_in_bfloat16(rounding: Any) -> None:
    plain, ours = Small(torch.bfloat16), Small(torch.bfloat16)
    options = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.1}
    train(plain, SGD(plain.parameters(), **options, rounding=rounding, max_norm=0.3))
    train(ours, SGD(ours.parameters(), **options, rounding=rounding, max_norm=0.3, in_backward=True))
    assert_equal(plain, ours)


def test_bit_equal_under_schedules_of_lr_and_momentum() -> None:
    models = Small(), Small()
    for model, in_backward in zip(models, (False, True), strict=True):
        optimizer = SGD(model.parameters(), momentum=_rising, in_backward=in_backward, convention="canonical")
        scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.5, total_steps=8, cycle_momentum=False)
        for k in range(8):
            loss_of(model, k).backward()
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
    assert_equal(*models)


def _rising(k: int) -> float:
    return 0.1 * k


def test_one_gradient_lives_at_a_time() -> None:
    model, alive = Small(), []

    def count(_: Tensor) -> None:
        alive.append(sum(p.grad is not None for p in model.parameters()))

    for p in model.parameters():
        p.register_post_accumulate_grad_hook(count)
    SGD(model.parameters(), in_backward=True)
    optimizer = SGD(model.parameters(), in_backward=True)
    loss_of(model, 0).backward()
    assert alive == [1] * len(list(model.parameters()))
    before = {name: x.clone() for name, x in model.state_dict().items()}
    optimizer.step()
    assert all(torch.equal(x, before[name]) for name, x in model.state_dict().items())  # all was done in backward


def test_a_tied_weight_moves_once_and_by_the_whole_gradient() -> None:
    model = Small()
    (gradient,) = torch.autograd.grad(loss_of(model, 0), [model.embedding.weight])
    expected = model.embedding.weight.detach() - 0.5 * gradient
    optimizer = SGD(model.parameters(), lr=0.5, in_backward=True)
    loss_of(model, 0).backward()
    optimizer.step()
    assert torch.equal(model.embedding.weight, expected)


def test_a_gradient_that_the_last_pass_does_not_reach_is_used_by_step() -> None:
    model = nn.ModuleList([nn.Linear(3, 1), nn.Linear(3, 1)])
    optimizer = SGD(model.parameters(), lr=0.5, in_backward=True)
    before = copy.deepcopy(model)
    with optimizer.accumulating():
        model[0](torch.ones(3)).sum().backward()
    assert torch.equal(model[0].weight, before[0].weight)
    model[1](torch.ones(3)).sum().backward()
    optimizer.step()
    assert torch.equal(model[0].weight, before[0].weight - 0.5)
    assert torch.equal(model[1].weight, before[1].weight - 0.5)
    assert all(p.grad is None for p in model.parameters())


def test_gradients_that_share_memory_accumulate_on_their_own() -> None:
    model, expected = Small(sharing=True), Small(sharing=True)
    optimizer = SGD(model.parameters(), lr=1.0, in_backward=True)
    with optimizer.accumulating():
        loss_of(model, 0).backward()
    loss_of(model, 1).backward()
    gradients = [torch.autograd.grad(loss_of(expected, k), list(expected.parameters())) for k in range(2)]
    with torch.no_grad():
        for p, first, second in zip(expected.parameters(), *gradients, strict=True):
            p.sub_(first + second)
    assert_equal(model, expected)


@pytest.mark.parametrize("clipping", ["parameter", "previous", "exact"])
def test_gradients_set_by_hand_are_clipped_and_used(clipping: Any) -> None:
    a, b = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))
    optimizer = SGD([a, b], lr=1.0, in_backward=True, max_norm=1.0, clipping=clipping)
    a.grad, b.grad = torch.tensor([3.0]), torch.tensor([4.0])
    optimizer.step()
    norms = (5.0, 5.0) if clipping == "exact" else (3.0, 4.0)
    assert [a.item(), b.item()] == pytest.approx([-3 / norms[0], -4 / norms[1]], rel=1e-5)


def test_the_previous_norm_is_the_global_one_or_the_own_where_that_is_larger() -> None:
    a, b = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))
    optimizer = SGD([a, b], lr=1.0, in_backward=True, max_norm=1.0, clipping="previous")

    def moved(of_a: float, of_b: float) -> list[float]:
        before = a.item(), b.item()
        (of_a * a + of_b * b).backward()
        optimizer.step()
        return [before[0] - a.item(), before[1] - b.item()]

    assert moved(3, 4) == pytest.approx([1, 1], rel=1e-5)  # no step before: the own norm
    assert moved(3, 4) == pytest.approx([3 / 5, 4 / 5], rel=1e-5)
    assert moved(50, 0.4) == pytest.approx([1, 0.4 / 5], rel=1e-5)  # a sudden gradient stays within max_norm
    assert moved(3, 0.4) == pytest.approx([3 / 50.0016, 0.4 / 50.0016], rel=1e-5)
    assert moved(0.3, 0.4) == pytest.approx([0.3 / 3.0265, 0.4 / 3.0265], rel=1e-4)
    assert moved(0.3, 0.4) == pytest.approx([0.3, 0.4], rel=1e-5)


@pytest.mark.parametrize("clipping", ["parameter", "previous"])
def test_a_resumed_run_goes_on_the_same(clipping: Any) -> None:
    options = {"lr": 0.1, "momentum": 0.9, "in_backward": True, "max_norm": 0.1, "clipping": clipping}
    model = Small()
    optimizer = SGD(model.parameters(), **options)
    train(model, optimizer)
    resumed = Small()
    resumed.load_state_dict(model.state_dict())
    other = SGD(resumed.parameters(), **options)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    train(model, optimizer)
    train(resumed, other)
    assert_equal(model, resumed)


@pytest.mark.parametrize("in_backward", [True, False])
def test_state_dicts_go_to_torch_and_back(in_backward: bool) -> None:
    model = Small()
    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9, in_backward=True, max_norm=9.0, clipping="previous")
    train(model, optimizer)
    torchs = torch.optim.SGD(model.parameters(), lr=0.5)
    torchs.load_state_dict(optimizer.state_dict())
    back = SGD(model.parameters(), lr=0.7, in_backward=in_backward)
    del optimizer
    back.load_state_dict(torchs.state_dict())
    for p in model.parameters():
        assert torch.equal(back.state[p]["momentum_buffer"], torchs.state[p]["momentum_buffer"])
    twin = copy.deepcopy(model)
    ours = [p.detach() for p in model.parameters()]
    theirs = torch.optim.SGD(twin.parameters(), lr=0.5)
    theirs.load_state_dict(copy.deepcopy(torchs.state_dict()))  # loading copies no tensors
    for net, stepping in ((model, back), (twin, theirs)):
        loss_of(net, 5).backward()
        stepping.step()
    assert all(torch.equal(x, y) for x, y in zip(ours, twin.parameters(), strict=True))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))])
def test_a_copy_updates_its_own_parameters(copied: Any) -> None:
    model = Small()
    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9, in_backward=True, max_norm=0.1, clipping="previous")
    train(model, optimizer)
    other, its = copied((model, optimizer))
    before = copy.deepcopy(model)
    train(other, its)
    assert_equal(model, before)
    train(model, optimizer)
    assert_equal(model, other)


def test_a_copied_model_is_not_updated() -> None:
    model = Small()
    optimizer = SGD(model.parameters(), lr=0.1, in_backward=True)
    average = copy.deepcopy(model)
    before = copy.deepcopy(average)
    loss_of(average, 0).backward()
    optimizer.step()
    assert_equal(average, before)
    assert average.scale.grad is not None


def test_nothing_is_kept_alive_and_no_hook_stays() -> None:
    model = Small()
    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9, in_backward=True)
    train(model, optimizer)
    gc.collect()
    gc.disable()  # by counting references alone
    try:
        dead = weakref.ref(optimizer)
        del optimizer
        assert dead() is None
        assert not any(p._post_accumulate_grad_hooks for p in model.parameters())
        loss_of(model, 0).backward()
        assert all(p.grad is not None for p in model.parameters())
        dead_model = weakref.ref(model.embedding)
        model.zero_grad()
        del model
        assert dead_model() is None
    finally:
        gc.enable()


def test_a_group_added_later_and_one_unfrozen_late() -> None:
    models = [nn.ModuleList([nn.Linear(3, 3), nn.Linear(3, 3)]) for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    for model, in_backward in zip(models, (False, True), strict=True):
        optimizer = SGD(model[0].parameters(), lr=0.1, in_backward=in_backward)
        model[1].requires_grad_(False)
        optimizer.add_param_group({"params": list(model[1].parameters()), "lr": 0.3, "momentum": 0.9})
        for k in range(4):
            model[1].requires_grad_(k >= 2)
            model[1](model[0](torch.full((2, 3), 0.1 * k))).pow(2).sum().backward()
            assert (model[1].weight.grad is None) == (k < 2 or (in_backward and k == 3))
            optimizer.step()
            optimizer.zero_grad()
    assert_equal(*models)
