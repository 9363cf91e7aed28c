"""State of `lightball.optim.SGD`: state dicts to and from torch's SGD, pickles, copies, GradScaler, late parameters."""

from __future__ import annotations

import copy
import io
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lightball.errors import InputError
from lightball.optim import SGD

OPTIONS: dict[str, Any] = {"lr": 0.1, "momentum": 0.9, "dampening": 0.2, "weight_decay": 0.01}


def model(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))


def steps(net: nn.Module, optimizer: Optimizer, first: int, last: int) -> list[Tensor]:
    for k in range(first, last):
        x = torch.randn(6, 4, generator=torch.Generator().manual_seed(k))
        optimizer.zero_grad()
        net(x).square().sum().backward()
        optimizer.step()
    return [p.detach().clone() for p in net.parameters()]


def through_a_file(state: dict[str, Any]) -> dict[str, Any]:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)  # type: ignore[no-any-return]


def equal(a: list[Tensor], b: list[Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("kinds", [(torch.optim.SGD, SGD), (SGD, torch.optim.SGD), (SGD, SGD)])
def test_a_run_goes_on_bit_equal_through_the_state_dict(kinds: tuple[Any, Any]) -> None:
    whole = model()
    end = steps(whole, torch.optim.SGD(whole.parameters(), **OPTIONS), 0, 8)
    net = model()
    first = kinds[0](net.parameters(), **OPTIONS)
    steps(net, first, 0, 4)
    second = kinds[1](net.parameters(), lr=5.0)
    second.load_state_dict(through_a_file(first.state_dict()))
    assert equal(steps(net, second, 4, 8), end)


def test_a_canonical_run_goes_on_in_torch() -> None:
    whole, net = model(), model()
    options: dict[str, Any] = {"lr": 0.1, "momentum": 0.9, "convention": "canonical"}
    end = steps(whole, SGD(whole.parameters(), **options), 0, 8)
    first = SGD(net.parameters(), **options)
    steps(net, first, 0, 4)
    second = torch.optim.SGD(net.parameters())
    second.load_state_dict(through_a_file(first.state_dict()))
    steps(net, second, 4, 6)
    third = SGD(net.parameters())
    third.load_state_dict(through_a_file(second.state_dict()))
    assert third.param_groups[0]["convention"] == "canonical"
    assert equal(steps(net, third, 6, 8), end)


@pytest.mark.parametrize("frozen", [False, True])
def test_a_canonical_state_goes_to_torch_before_the_first_step_of_a_parameter(frozen: bool) -> None:
    whole, net = model(), model()
    options: dict[str, Any] = {"lr": 0.1, "momentum": 0.9, "convention": "canonical"}
    reference, first = SGD(whole.parameters(), **options), SGD(net.parameters(), **options)
    num_before = 2 if frozen else 0
    for each, optimizer in ((whole, reference), (net, first)):
        each[0].requires_grad_(not frozen)
        steps(each, optimizer, 0, num_before)
        each[0].requires_grad_(True)
    state = through_a_file(first.state_dict())
    assert len(first.state) == num_before  # of the two parameters that were not frozen; saving adds none
    second = torch.optim.SGD(net.parameters())
    second.load_state_dict(state)
    assert equal(steps(net, second, 2, 5), steps(whole, reference, 2, 5))


def test_saving_a_canonical_run_makes_no_buffers_in_it() -> None:
    p = nn.Parameter(torch.ones(3, dtype=torch.bfloat16))
    optimizer = SGD([p], momentum=0.9, convention="canonical", rounding="stochastic")
    assert optimizer.state_dict()["state"][0].keys() == {"rounding_seed", "momentum_buffer"}
    assert optimizer.state[p].keys() == {"rounding_seed"}


@pytest.mark.parametrize(
    ("values", "options", "text"),
    [
        ({"differentiable": True}, {"in_backward": True}, "differentiable=True with in_backward=True"),
        ({"lr": -1.0}, {}, "lr is -1"),
        ({"foreach": True}, {"rounding": "kahan"}, "foreach=True with rounding='kahan'"),
    ],
)
def test_a_state_that_cannot_work_is_refused_and_changes_nothing(
    values: dict[str, Any], options: dict[str, Any], text: str
) -> None:
    optimizer = SGD(model().parameters(), lr=0.3, momentum=0.5, **options)
    state = torch.optim.SGD(model().parameters(), lr=0.1).state_dict()
    state["param_groups"][0].update(values)
    with pytest.raises(InputError, match=text):
        optimizer.load_state_dict(state)
    group = optimizer.param_groups[0]
    assert (group["lr"], group["momentum"], group["differentiable"]) == (0.3, 0.5, False)


def test_a_state_of_an_older_torch_lacks_keys() -> None:
    net = model()
    optimizer = SGD(net.parameters(), foreach=False)
    state = torch.optim.SGD(model().parameters(), lr=0.1).state_dict()
    for name in ("foreach", "fused", "differentiable", "maximize"):
        del state["param_groups"][0][name]
    optimizer.load_state_dict(state)
    reference = model()
    expected = steps(reference, torch.optim.SGD(reference.parameters(), lr=0.1), 0, 2)
    assert equal(steps(net, optimizer, 0, 2), expected)


def test_the_previous_norm_goes_where_it_is_of_use() -> None:
    options: dict[str, Any] = {"in_backward": True, "max_norm": 0.1, "clipping": "previous"}
    first = SGD((net := model()).parameters(), **options)
    steps(net, first, 0, 1)
    state = first.state_dict()
    again, other = SGD(model().parameters(), **options), SGD(model().parameters(), in_backward=True)
    again.load_state_dict(state), other.load_state_dict(state)
    assert torch.equal(again.param_groups[0]["previous_norm"], first.param_groups[0]["previous_norm"])
    assert "previous_norm" not in other.param_groups[0]


def test_a_state_of_torch_brings_its_convention_and_says_so() -> None:
    whole, net = model(), model()
    end = steps(whole, torch.optim.SGD(whole.parameters(), **OPTIONS), 0, 8)
    first = torch.optim.SGD(net.parameters(), **OPTIONS)
    steps(net, first, 0, 4)
    second = SGD(net.parameters(), lr=1.0, momentum=0.9, convention="canonical")
    with pytest.warns(UserWarning, match="the state dict is written in torch's convention"):
        second.load_state_dict(first.state_dict())
    assert equal(steps(net, second, 4, 8), end)


def test_own_keys_stay_beside_torchs() -> None:
    optimizer = SGD(model().parameters(), rounding="kahan", seed=3, momentum=lambda k: 0.5)
    theirs = torch.optim.SGD(model().parameters(), momentum=0.5)
    keys = theirs.param_groups[0].keys()
    assert keys <= optimizer.param_groups[0].keys()
    optimizer.load_state_dict(theirs.state_dict())
    group = optimizer.param_groups[0]
    assert (group["rounding"], group["seed"], group["momentum_schedule"](0)) == ("kahan", 3, 0.5)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_copies_go_on_alike(duplicate: Any) -> None:
    net = model()
    optimizer = SGD(net.parameters(), **OPTIONS, max_norm=0.5, clipping="global")
    steps(net, optimizer, 0, 3)
    twin_net, twin = duplicate((net, optimizer))
    assert twin.param_groups[0]["params"][0] is next(twin_net.parameters())
    assert equal(steps(twin_net, twin, 3, 6), steps(net, optimizer, 3, 6))


@pytest.mark.parametrize("kind", [torch.optim.SGD, SGD])
def test_a_copy_of_a_group_makes_the_same_optimizer(kind: Any) -> None:
    net, other = model(), model()
    first = kind(net.parameters(), **OPTIONS)
    second = SGD([{**first.param_groups[0], "params": list(other.parameters())}])
    assert equal(steps(net, first, 0, 3), steps(other, second, 0, 3))


def test_a_tensor_lr_is_kept() -> None:
    lr = torch.tensor([0.1])
    net, other = model(), model()
    optimizer = SGD(net.parameters(), lr=lr)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    optimizer.step()
    schedule.step()
    assert optimizer.param_groups[0]["lr"] is lr
    assert lr.item() == pytest.approx(0.05)
    assert equal(steps(net, optimizer, 0, 2), steps(other, SGD(other.parameters(), lr=lr.item()), 0, 2))


@pytest.mark.parametrize("fused", [False, True])
def test_an_overflow_in_the_first_scaled_step_leaves_no_buffer(fused: bool) -> None:
    net, reference = model(), model()
    optimizer = SGD(net.parameters(), **OPTIONS, fused=fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
    before = [p.detach().clone() for p in net.parameters()]
    net(torch.full((2, 4), float("inf"))).sum().backward()
    scaler.scale(torch.ones(()))
    for p in net.parameters():
        p.grad = torch.full_like(p, float("inf"))
    scaler.step(optimizer)
    scaler.update()
    assert equal(before, [p.detach() for p in net.parameters()])
    assert not optimizer.state_dict()["state"]
    for k in range(3):
        optimizer.zero_grad()
        x = torch.randn(6, 4, generator=torch.Generator().manual_seed(k))
        scaler.scale(net(x).square().sum()).backward()
        scaler.step(optimizer)
        scaler.update()
    expected = steps(reference, SGD(reference.parameters(), **OPTIONS), 0, 3)
    assert all(torch.allclose(a, b, rtol=1e-5) for a, b in zip(net.parameters(), expected, strict=True))


def test_an_overflow_leaves_the_empty_buffer_of_an_old_state_empty() -> None:
    p = nn.Parameter(torch.ones(3))
    optimizer = SGD([p], momentum=0.9, fused=True)
    optimizer.load_state_dict({**optimizer.state_dict(), "state": {0: {"momentum_buffer": None}}})
    scaler = torch.amp.GradScaler("cpu")
    scaler.scale(torch.ones(()))
    p.grad = torch.full_like(p, float("inf"))
    scaler.step(optimizer)
    assert optimizer.state[p] == {"momentum_buffer": None}


def test_a_later_overflow_changes_nothing_in_the_fused_step() -> None:
    net = model()
    optimizer = SGD(net.parameters(), **OPTIONS, fused=True)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
    for k in range(2):
        scaler.scale(net(torch.randn(6, 4)).square().sum()).backward()
        if k == 1:
            for p in net.parameters():
                p.grad = torch.full_like(p, float("nan"))
        before = copy.deepcopy((list(net.parameters()), optimizer.state_dict()["state"]))
        scaler.step(optimizer)
        scaler.update()
    assert equal(before[0], list(net.parameters()))
    for i, entry in optimizer.state_dict()["state"].items():
        assert torch.equal(entry["momentum_buffer"], before[1][i]["momentum_buffer"])


@pytest.mark.parametrize("path", [{}, {"foreach": True}, {"fused": True}])
def test_a_parameter_unfrozen_late_starts_as_at_its_first_step(path: dict[str, bool]) -> None:
    net, reference = model(), model()
    for each in (net, reference):
        each[0].weight.requires_grad_(False)
    ours, theirs = SGD(net.parameters(), **OPTIONS, **path), torch.optim.SGD(reference.parameters(), **OPTIONS)  # type: ignore[arg-type]
    steps(net, ours, 0, 2), steps(reference, theirs, 0, 2)
    for each in (net, reference):
        each[0].weight.requires_grad_(True)
    moved, expected = steps(net, ours, 2, 5), steps(reference, theirs, 2, 5)
    assert all(torch.allclose(a, b, rtol=1e-5, atol=1e-7) for a, b in zip(moved, expected, strict=True))
    if not path:
        assert equal(moved, expected)


def test_a_group_that_is_refused_is_not_added() -> None:
    net = model()
    optimizer = SGD(net[0].parameters())
    with pytest.raises(InputError, match="lr is -1"):
        optimizer.add_param_group({"params": net[2].parameters(), "lr": -1})
    with pytest.raises(ZeroDivisionError):
        optimizer.add_param_group({"params": net[2].parameters(), "momentum": lambda k: 0.9 / k})
    assert len(optimizer.param_groups) == 1


@pytest.mark.parametrize("clipping", ["global", "parameter"])
def test_clipping_in_the_step_is_torchs(clipping: Any) -> None:
    net, reference = model(), model()
    ours = SGD(net.parameters(), **OPTIONS, max_norm=0.3, clipping=clipping)
    theirs = torch.optim.SGD(reference.parameters(), **OPTIONS)
    for k in range(3):
        x = torch.randn(6, 4, generator=torch.Generator().manual_seed(k))
        for each, optimizer in ((net, ours), (reference, theirs)):
            optimizer.zero_grad()
            each(x).square().sum().backward()
        together = [list(reference.parameters())] if clipping == "global" else [[p] for p in reference.parameters()]
        for params in together:
            nn.utils.clip_grad_norm_(params, 0.3, foreach=False)
        ours.step(), theirs.step()
        assert equal(list(net.parameters()), list(reference.parameters()))


def test_clipping_gradients_that_share_memory() -> None:
    """Autograd may give two parameters one storage; each is scaled once."""
    a, b = nn.Parameter(torch.zeros(2, 3)), nn.Parameter(torch.zeros(3, 2))
    optimizer = SGD([a, b], lr=1.0, max_norm=6**0.5, clipping="parameter")
    (2 * (a.view(-1) + b.view(-1))).sum().backward()
    assert a.grad is not None
    assert b.grad is not None
    assert a.grad.data_ptr() == b.grad.data_ptr()
    optimizer.step()
    assert torch.allclose(a, -torch.ones(2, 3), atol=1e-5)
    assert torch.allclose(b, -torch.ones(3, 2), atol=1e-5)
