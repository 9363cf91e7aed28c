"""SVAG around an optimizer: its gradient is that of the oracle, its law that of exact moments, and its traps."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lightball.dynamics import exact_moments
from lightball.errors import InputError
from lightball.optim.sgd import SGD
from lightball.optim.svag import SVAG
from lightball.oracles import Quadratic, Svag

ORACLE = Quadratic(
    torch.tensor([[2.0, 0.5], [0.5, 1.0]], dtype=torch.float64),
    torch.tensor([[1.0, -0.3], [-0.3, 0.5]], dtype=torch.float64),
    torch.tensor([1.0, -2.0], dtype=torch.float64),
)


def loss_on(x: Tensor, sample: Tensor) -> Tensor:
    """½ xᵀ H x + xᵀ Σ^{1/2} v of every replica, added up, whose gradient is the oracle's."""
    root = ORACLE.noise_factor({"x": x.detach()})[0]
    return (0.5 * (x @ ORACLE.curvature * x).sum(dim=-1) + (x * (sample @ root)).sum(dim=-1)).sum()


def combined(ell: float, samples: Tensor) -> Tensor:
    """SVAG's gradient at the start for pairs of samples, (replica, 2, dim)."""
    x = nn.Parameter(ORACLE.start(len(samples))["x"])
    svag = SVAG(torch.optim.SGD([x], lr=1.0), ell)
    svag.backward(lambda: loss_on(x, samples[:, 0]), lambda: loss_on(x, samples[:, 1]))
    assert x.grad is not None
    return x.grad


@pytest.mark.parametrize("ell", [1, 1.5, 4, 100])
def test_mean_and_covariance_are_those_of_the_oracle(ell: float) -> None:
    """Exactly: n² pairs of n equally likely samples are all that two independent draws can be."""
    n = 7
    samples = ORACLE.draw(n, torch.Generator().manual_seed(0))
    pairs = torch.stack((samples.repeat_interleave(n, 0), samples.repeat(n, 1)), dim=1)
    gradients = combined(ell, pairs)
    svag = Svag(ORACLE, ell)
    expected = svag.noisy_gradient(svag.start(n * n), pairs)[1]["x"]
    torch.testing.assert_close(gradients, expected, rtol=1e-12, atol=1e-12)

    single = ORACLE.noisy_gradient(ORACLE.start(n), samples)[1]["x"]
    torch.testing.assert_close(gradients.mean(dim=0), single.mean(dim=0))
    torch.testing.assert_close(torch.cov(gradients.mT, correction=0), ell * torch.cov(single.mT, correction=0))


# Five numbers a case, each within 4.5 standard errors: over all cases a false alarm has a chance below 3e-4.
@pytest.mark.parametrize("momentum", [0.0, 0.8])
@pytest.mark.parametrize("ell", [1, 2, 4])
def test_the_law_of_lr_and_steps_on_a_quadratic(ell: int, momentum: float) -> None:
    assert worst_deviation(SVAG, ell, momentum) < 4.5


def test_the_law_fails_for_the_rate_of_ell_1() -> None:
    class Undivided(SVAG):
        def _divided_rates(self):  # type: ignore[no-untyped-def]
            from contextlib import nullcontext

            return nullcontext()

    assert worst_deviation(Undivided, 4, 0.0) > 20


def worst_deviation(kind: type[SVAG], ell: int, momentum: float) -> float:
    """Standard errors between the moments of 20,000 replicas and those of lr/ℓ, ℓ Σ and ℓ times the steps."""
    lr, steps, replicas = 0.2, 10, 20_000
    x = nn.Parameter(ORACLE.start(replicas)["x"])
    svag = kind(SGD([x], lr=lr, momentum=momentum, convention="canonical"), ell)
    draws = torch.Generator().manual_seed(ell)
    for _ in range(svag.num_steps(steps)):
        svag.zero_grad()
        svag.backward(*(lambda: loss_on(x, ORACLE.draw(replicas, draws)) for _ in range(2)))
        svag.step()
    exact = exact_moments(ORACLE, lr / ell, momentum, num_steps=ell * steps, record_at=[ell * steps], noise_scale=ell)
    mean, covariance = np.asarray(exact.mean)[-1], np.asarray(exact.covariance)[-1]
    mean, covariance = mean.reshape(-1)[:2], covariance.reshape(covariance.shape[-2:])[:2, :2]
    found = x.detach().numpy()
    variances = np.diag(covariance)
    of_mean = (found.mean(axis=0) - mean) / np.sqrt(variances / replicas)
    of_covariance = (np.cov(found.T) - covariance) / np.sqrt(
        (np.outer(variances, variances) + covariance**2) / replicas
    )
    return float(max(abs(of_mean).max(), abs(of_covariance).max()))


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3))


def batches(count: int) -> list[tuple[Tensor, Tensor]]:
    draws = torch.Generator().manual_seed(1)
    return [(torch.randn(6, 5, generator=draws), torch.randint(0, 3, (6,), generator=draws)) for _ in range(count)]


def loss_of(net: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
    return nn.functional.cross_entropy(net(inputs), targets)


Made = Callable[[nn.Module], torch.optim.Optimizer]
OPTIMIZERS: dict[str, Made] = {
    "SGD": lambda m: torch.optim.SGD(m.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01, nesterov=True),
    "ours": lambda m: SGD(m.parameters(), lr=0.1, momentum=0.9, convention="canonical"),
    "groups": lambda m: torch.optim.SGD([{"params": p, "lr": 0.1 * 2**-i} for i, p in enumerate(m.parameters())]),
    "tensor lr": lambda m: torch.optim.SGD(m.parameters(), lr=torch.tensor(0.1), foreach=True),
    "AdamW": lambda m: torch.optim.AdamW(m.parameters(), lr=0.01),
}


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_ell_1_is_the_optimizer_to_the_bit(make: Made) -> None:
    """On the first of the two minibatches, under a scheduler that was made on it."""
    wrapped, alone = model(), model()
    svag, optimizer = SVAG(make(wrapped), 1), make(alone)
    schedulers = [torch.optim.lr_scheduler.CosineAnnealingLR(o, 5, eta_min=1e-3) for o in (svag, optimizer)]
    for inputs, targets in batches(5):
        svag.zero_grad()
        svag.backward(partial(loss_of, wrapped, inputs, targets), lambda: pytest.fail("called"))
        optimizer.zero_grad()
        loss_of(alone, inputs, targets).backward()
        for each in (svag, optimizer, *schedulers):
            each.step()
    assert all(map(torch.equal, wrapped.parameters(), alone.parameters()))


def take(svag: SVAG, net: nn.Module, pairs: list[tuple[Tensor, Tensor]]) -> None:
    for (x, y), (other_x, other_y) in zip(pairs[::2], pairs[1::2], strict=True):
        svag.zero_grad()
        svag.backward(partial(loss_of, net, x, y), partial(loss_of, net, other_x, other_y))
        svag.step()


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_a_step_is_that_of_the_optimizer_at_a_smaller_rate_on_the_combined_loss(make: Made) -> None:
    wrapped, alone, ell = model(), model(), 4
    svag, optimizer = SVAG(make(wrapped), ell), make(alone)
    rates = [copy.deepcopy(group["lr"]) for group in optimizer.param_groups]
    for group in optimizer.param_groups:
        group["lr"] = group["lr"] / ell
    plus, minus = (1 + math.sqrt(7)) / 2, (1 - math.sqrt(7)) / 2
    pairs = batches(6)
    take(svag, wrapped, pairs)
    for (x, y), (other_x, other_y) in zip(pairs[::2], pairs[1::2], strict=True):
        optimizer.zero_grad()
        (plus * loss_of(alone, x, y)).backward()
        (minus * loss_of(alone, other_x, other_y)).backward()
        optimizer.step()
    assert all(map(torch.equal, wrapped.parameters(), alone.parameters()))
    assert [group["lr"] for group in svag.param_groups] == rates


def test_the_rate_comes_back_when_a_step_fails() -> None:
    net = model()
    svag = SVAG(torch.optim.SGD(net.parameters(), lr=0.1), 4)
    svag.optimizer.register_step_pre_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        take(svag, net, batches(2))
    assert svag.param_groups[0]["lr"] == 0.1


def test_a_scheduler_keeps_its_absolute_rates_and_runs_ell_times_as_long() -> None:
    net = model()
    svag = SVAG(torch.optim.SGD(net.parameters(), lr=0.1), 2.5)
    assert svag.num_steps(4) == 10
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(svag, svag.num_steps(4), eta_min=0.01)
    used = []
    svag.optimizer.register_step_pre_hook(lambda optimizer, *_: used.append(optimizer.param_groups[0]["lr"]))
    for _ in range(10):
        take(svag, net, batches(2))
        scheduler.step()
    expected = [(0.01 + 0.045 * (1 + math.cos(math.pi * k / 10))) / 2.5 for k in range(10)]
    assert used == pytest.approx(expected)
    assert svag.param_groups[0]["lr"] == pytest.approx(0.01)


def test_the_state_is_the_optimizers() -> None:
    """Saved, it loads into the optimizer alone and at another ℓ; after loading, groups are still shared."""
    net = model()
    svag = SVAG(torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9), 4)
    take(svag, net, batches(4))
    saved = copy.deepcopy(svag.state_dict())
    torch.optim.SGD(net.parameters(), lr=7.0).load_state_dict(saved)
    other = SVAG(torch.optim.SGD(net.parameters(), lr=7.0), 8)
    other.load_state_dict(saved)
    assert other.param_groups is other.optimizer.param_groups
    assert other.param_groups[0]["lr"] == 0.1
    assert all(torch.equal(other.state[p]["momentum_buffer"], svag.state[p]["momentum_buffer"]) for p in svag.state)
    other.add_param_group({"params": [nn.Parameter(torch.zeros(2))]})
    assert len(other.optimizer.param_groups) == 2


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))])
def test_a_copy_goes_on_alike(copied: Callable[[tuple[nn.Module, SVAG]], tuple[nn.Module, SVAG]]) -> None:
    net = model()
    svag = SVAG(torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9), 4)
    take(svag, net, batches(4))
    twin, its = copied((net, svag))
    take(svag, net, batches(4))
    take(its, twin, batches(4))
    assert all(map(torch.equal, net.parameters(), twin.parameters()))


def test_accumulation_and_a_grad_scaler() -> None:
    """Micro-batches add up as usual, and losses that a GradScaler has scaled come out unscaled."""
    (x, y), (other_x, other_y) = batches(2)
    whole, parts = model(), model()
    svags = [SVAG(torch.optim.SGD(net.parameters(), lr=0.1), 4) for net in (whole, parts)]
    svags[0].backward(partial(loss_of, whole, x, y), partial(loss_of, whole, other_x, other_y))
    svags[0].step()
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)

    def part_of(inputs: Tensor, targets: Tensor) -> Callable[[], Tensor]:
        return lambda: scaler.scale(loss_of(parts, inputs, targets) / 2)

    for i in (slice(0, 3), slice(3, 6)):
        svags[1].backward(part_of(x[i], y[i]), part_of(other_x[i], other_y[i]))
    scaler.step(svags[1])
    scaler.update()
    for p, q in zip(whole.parameters(), parts.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-7)


def test_the_loss_that_comes_back_is_the_mean_of_both() -> None:
    x = nn.Parameter(torch.tensor(1.0))
    svag = SVAG(torch.optim.SGD([x], lr=0.1), 2)
    loss = svag.backward(lambda: 2 * x, lambda: 4 * x)
    assert loss.item() == 3
    assert not loss.requires_grad


def refusal(action: Callable[[], object]) -> str:
    with pytest.raises(InputError) as error:
        action()
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_step_without_its_gradients_is_refused() -> None:
    net = model()
    svag = SVAG(torch.optim.SGD(net.parameters(), lr=0.1), 4)
    expected = (
        "SVAG's step needs the gradients of two minibatches, but there was no backward(first, second) since the last "
        "step or zero_grad: call optimizer.backward(first, second) in place of loss.backward()"
    )
    assert refusal(svag.step) == expected
    take(svag, net, batches(2))
    assert refusal(svag.step) == expected
    svag.backward(lambda: net(torch.ones(5)).sum(), lambda: net(torch.ones(5)).sum())
    svag.zero_grad()
    assert refusal(svag.step) == expected


def test_what_cannot_be_wrapped_is_refused() -> None:
    parameters = list(model().parameters())
    assert refusal(lambda: SVAG(torch.optim.SGD(parameters), 0.5)) == (
        "ell is 0.5; required is a finite number ≥ 1; 1 changes nothing"
    )
    assert refusal(lambda: SVAG(torch.optim.LBFGS(parameters), 2)) == (
        "the step of LBFGS needs a closure, which evaluates the loss as often as it likes; SVAG requires one whose "
        "step uses the gradients that are there: use SGD"
    )
    assert refusal(lambda: SVAG(SGD(parameters, in_backward=True), 2)) == (
        "SGD with in_backward=True moves in each backward pass, but SVAG needs two for a step: use in_backward=False"
    )
    assert refusal(lambda: SVAG(torch.optim.SGD(parameters), 2).step(lambda: 0.0)) == (  # type: ignore[arg-type]
        "SVAG's step got a closure, but takes none: call optimizer.backward(first, second) before it"
    )
    without_lr = torch.optim.SGD(parameters)
    del without_lr.param_groups[0]["lr"]
    assert refusal(lambda: SVAG(without_lr, 2)) == (
        "a parameter group of SGD has no 'lr', which SVAG divides by ell: use SGD"
    )


def test_what_is_not_to_be_wrapped_says_so() -> None:
    parameters = [nn.Parameter(torch.ones(2))]
    with pytest.raises(InputError, match=r"SVAG got a Linear; required is a torch\.optim.Optimizer"):
        SVAG(nn.Linear(2, 2), 2)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"SVAG got an SVAG; required is the optimizer in it: give its \.optimizer"):
        SVAG(SVAG(torch.optim.SGD(parameters), 2), 2)
    with pytest.warns(UserWarning, match="SVAG around AdamW: .* methods that divide by what gradients were"):
        SVAG(torch.optim.AdamW(parameters), 2)


@pytest.mark.parametrize("steps", [2.5, -1, "3", True])
def test_steps_are_counted(steps: object) -> None:
    svag = SVAG(torch.optim.SGD([nn.Parameter(torch.ones(2))]), 4)
    with pytest.raises(InputError, match=r"steps is .*; required is a whole number from 0 up"):
        svag.num_steps(steps)  # type: ignore[arg-type]
