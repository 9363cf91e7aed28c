"""After drop_momentum every scheduler gives, at every later step, its factor times what it would have given."""

from __future__ import annotations

import copy
import math
import pickle
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import SGD, Optimizer
from torch.optim import lr_scheduler as lrs
from torch.optim.swa_utils import SWALR

from lightball.errors import InputError
from lightball.optim.conversion import WrittenOutLR, drop_momentum, with_momentum

NUM_STEPS = 60
SWITCHES = [0, 1, 7, 20, 21, 40]
MOMENTA = (0.9, 0.5, 0.0)


def optimizer_of(momenta: tuple[float, ...] = MOMENTA, tensor: bool = False, **options: Any) -> SGD:
    lr = torch.tensor(0.02, dtype=torch.float64) if tensor else 0.02
    groups = [{"params": [nn.Parameter(torch.ones(2))], "momentum": each} for each in momenta]
    return SGD(groups, lr=lr, **options)


def _sequential(o: Optimizer) -> lrs.LRScheduler:
    parts = [lrs.LinearLR(o, 0.1, total_iters=8), lrs.CosineAnnealingLR(o, 30), lrs.StepLR(o, 5)]
    return lrs.SequentialLR(o, parts, [8, 40])


def _nested(o: Optimizer) -> lrs.LRScheduler:
    inner = lrs.SequentialLR(o, [lrs.LinearLR(o, 0.1, total_iters=8), lrs.CosineAnnealingLR(o, 30)], [8])
    return lrs.ChainedScheduler([inner, lrs.ExponentialLR(o, 0.95)], o)


SCHEDULERS: dict[str, Callable[[Optimizer], lrs.LRScheduler]] = {
    "lambda": lambda o: lrs.LambdaLR(o, lambda k: 1 / (1 + k)),
    "multiplicative": lambda o: lrs.MultiplicativeLR(o, lambda k: 0.9 + 0.01 * (k % 3)),
    "step": lambda o: lrs.StepLR(o, 7, 0.3),
    "multistep": lambda o: lrs.MultiStepLR(o, [5, 21, 21, 50], 0.3),
    "constant": lambda o: lrs.ConstantLR(o, 0.3, 20),
    "linear": lambda o: lrs.LinearLR(o, 0.1, 0.7, 30),
    "exponential": lambda o: lrs.ExponentialLR(o, 0.9),
    "polynomial": lambda o: lrs.PolynomialLR(o, 50, 2.0),
    "cosine": lambda o: lrs.CosineAnnealingLR(o, 25),
    "warm restarts": lambda o: lrs.CosineAnnealingWarmRestarts(o, 6, 2),
    "cyclic": lambda o: lrs.CyclicLR(o, 0.001, [0.02, 0.03, 0.04], 6, 5, mode="triangular2", cycle_momentum=False),
    "cyclic, range": lambda o: lrs.CyclicLR(o, 0.001, 0.02, 6, mode="exp_range", gamma=0.9, cycle_momentum=False),
    "one cycle": lambda o: lrs.OneCycleLR(o, 0.1, NUM_STEPS + 5, cycle_momentum=False),
    "one cycle, three": lambda o: lrs.OneCycleLR(
        o, [0.1, 0.2, 0.3], NUM_STEPS + 5, three_phase=True, cycle_momentum=False, anneal_strategy="linear"
    ),
    "averaging": lambda o: SWALR(o, [0.05, 0.06, 0.07], anneal_epochs=15),
    "chained": lambda o: lrs.ChainedScheduler([lrs.ConstantLR(o, 0.1, 20), lrs.ExponentialLR(o, 0.9)]),
    "sequential": _sequential,
    "nested": _nested,
}
ONE_FACTOR: dict[str, Callable[[Optimizer], lrs.LRScheduler]] = {
    "cosine, floor": lambda o: lrs.CosineAnnealingLR(o, 25, eta_min=0.003),
    "warm restarts, floor": lambda o: lrs.CosineAnnealingWarmRestarts(o, 6, 2, eta_min=0.003),
    "chained, floor": lambda o: lrs.ChainedScheduler([lrs.CosineAnnealingLR(o, 25, 0.003), lrs.ConstantLR(o, 0.1, 20)]),
}


def trained(optimizer: Optimizer, scheduler: lrs.LRScheduler, num_steps: int) -> list[list[float]]:
    """Steps; the rates of each."""
    rates = []
    for _ in range(num_steps):
        rates.append([float(group["lr"]) for group in optimizer.param_groups])
        for group in optimizer.param_groups:
            for p in group["params"]:
                p.grad = torch.ones_like(p)
        optimizer.step()
        scheduler.step()
    return rates


def converted_and_kept(make: Callable, switch: int, **options: Any) -> tuple[list[list[float]], np.ndarray, Any]:
    """Rates after the switch, those of a run that kept momentum, and what drop_momentum returned."""
    kept, live = optimizer_of(**options), optimizer_of(**options)
    old, new = make(kept), make(live)
    trained(kept, old, switch), trained(live, new, switch)
    done = drop_momentum(live, new)
    assert done.scheduler is new
    return trained(live, new, NUM_STEPS - switch), np.array(trained(kept, old, NUM_STEPS - switch)), done


@pytest.mark.parametrize("switch", SWITCHES)
@pytest.mark.parametrize("name", SCHEDULERS)
def test_rates_are_the_factor_times_those_of_before(name: str, switch: int) -> None:
    rates, kept, done = converted_and_kept(SCHEDULERS[name], switch)
    assert done.factors == pytest.approx([10, 2, 1])
    np.testing.assert_allclose(rates, kept * [10, 2, 1], rtol=1e-10, atol=1e-17)


@pytest.mark.parametrize("switch", SWITCHES)
@pytest.mark.parametrize("name", ONE_FACTOR)
def test_a_floor_takes_the_factor_too(name: str, switch: int) -> None:
    rates, kept, _ = converted_and_kept(ONE_FACTOR[name], switch, momenta=(0.9, 0.9))
    np.testing.assert_allclose(rates, kept * 10, rtol=1e-10)


@pytest.mark.parametrize("name", ["cosine", "sequential", "one cycle", "step"])
def test_a_tensor_lr_that_groups_share_is_converted_for_each(name: str) -> None:
    rates, kept, _ = converted_and_kept(SCHEDULERS[name], 9, tensor=True)
    np.testing.assert_allclose(rates, kept * [10, 2, 1], rtol=1e-6)


def test_plateau_reduces_at_the_same_steps_and_stops_at_its_floor() -> None:
    metrics = [1.0, 0.9, *[0.9] * 40]

    def rates(switch: int | None) -> np.ndarray:
        optimizer = optimizer_of()
        scheduler = lrs.ReduceLROnPlateau(optimizer, factor=0.5, patience=2, min_lr=[1e-3, 2e-3, 3e-3], eps=1e-4)
        seen = []
        for number, metric in enumerate(metrics):
            if number == switch:
                drop_momentum(optimizer, scheduler)
            seen.append([group["lr"] for group in optimizer.param_groups])
            scheduler.step(metric)
        return np.array(seen)

    kept = rates(None)
    assert kept[-1] == pytest.approx([1e-3, 2e-3, 3e-3])
    np.testing.assert_allclose(rates(6)[6:], kept[6:] * [10, 2, 1], rtol=1e-12)


@pytest.mark.parametrize("switch", [None, 3])
def test_the_smallest_change_of_plateau_takes_the_factor(switch: int | None) -> None:
    """0.02 is halved once: half of 0.01 is a smaller change than eps allows."""
    optimizer = optimizer_of((0.9,))
    scheduler = lrs.ReduceLROnPlateau(optimizer, factor=0.5, patience=1, eps=6e-3)
    for number in range(20):
        if number == switch:
            drop_momentum(optimizer, scheduler)
        scheduler.step(1.0)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.01 if switch is None else 0.1)


@pytest.mark.parametrize("name", SCHEDULERS)
def test_the_last_rate_is_told_as_it_is_now(name: str) -> None:
    optimizer = optimizer_of()
    scheduler = SCHEDULERS[name](optimizer)
    trained(optimizer, scheduler, 5)
    drop_momentum(optimizer, scheduler)
    assert scheduler.get_last_lr() == [group["lr"] for group in optimizer.param_groups]


def displacement_of_each_gradient(make: Callable, switch: int, rest: int, **options: Any) -> np.ndarray:
    """How far the gradient of each step after the switch moves x until the run ends: by an impulse at each."""
    moved = []
    for impulse in range(rest):
        p = nn.Parameter(torch.zeros(1, dtype=torch.float64))
        optimizer = SGD([p], lr=0.02, momentum=0.9, **options)
        scheduler = make(optimizer)
        for number in range(switch + rest):
            p.grad = torch.full_like(p, float(number == switch + impulse))
            optimizer.step()
            scheduler.step()
        moved.append(-p.item())
    return np.array(moved)


@pytest.mark.parametrize("options", [{}, {"nesterov": True}, {"dampening": 0.5}])
def test_changing_momentum_gives_what_each_gradient_would_have_moved(options: dict[str, Any]) -> None:
    """The averaged schedule of OneCycleLR, against impulses through torch's own steps."""
    make = partial(lrs.OneCycleLR, max_lr=0.1, total_steps=30)
    expected = displacement_of_each_gradient(make, 12, 18, **options)
    p = nn.Parameter(torch.zeros(1, dtype=torch.float64))
    optimizer = SGD([p], lr=0.02, momentum=0.9, **options)
    scheduler = make(optimizer)
    trained(optimizer, scheduler, 12)
    done = drop_momentum(optimizer, scheduler)
    assert done.factors is None
    assert isinstance(scheduler, WrittenOutLR)
    assert done.scheduler is scheduler
    assert "averaged over the changing momentum" in str(done)
    assert "scheduler: OneCycleLR → WrittenOutLR\npending: weights moved by it" in str(done)
    np.testing.assert_allclose(np.ravel(trained(optimizer, scheduler, 18)), expected, rtol=1e-9)
    assert optimizer.param_groups[0]["momentum"] == 0
    assert not optimizer.state


@pytest.mark.parametrize("options", [{}, {"nesterov": True}, {"dampening": 0.5}])
def test_with_changing_momentum_the_pending_way_ends_where_the_run_would(options: dict[str, Any]) -> None:
    ends = []
    for drops in (False, True):
        p = nn.Parameter(torch.zeros(1, dtype=torch.float64))
        optimizer = SGD([p], lr=0.02, momentum=0.9, **options)
        scheduler = lrs.OneCycleLR(optimizer, 0.1, 30)
        trained(optimizer, scheduler, 12)
        if drops:
            drop_momentum(optimizer, scheduler)
        for _ in range(18):
            p.grad = torch.zeros_like(p)
            optimizer.step()
            scheduler.step()
        ends.append(p.item())
    assert ends[1] == pytest.approx(ends[0], rel=1e-9)


def test_cyclic_momentum_needs_the_steps_left_and_the_last_rate_stays() -> None:
    optimizer = optimizer_of((0.9,))
    scheduler = lrs.CyclicLR(optimizer, 0.001, 0.02, 6)
    trained(optimizer, scheduler, 5)
    with pytest.raises(InputError, match=r"moves momentum as well as the rate; required is num_steps ≥ 1"):
        drop_momentum(optimizer, scheduler)
    assert optimizer.state
    assert optimizer.param_groups[0]["momentum"] > 0.8
    drop_momentum(optimizer, scheduler, num_steps=10)
    rates = trained(optimizer, scheduler, 12)
    assert rates[10] == rates[9] == rates[11]
    assert optimizer.param_groups[0]["momentum"] == 0
    assert scheduler.last_epoch == 17


class Halving(lrs.LRScheduler):
    """A scheduler of the user's own, with a rate of its own."""

    def get_lr(self) -> list[float]:
        return [0.004 + base * 0.5**self.last_epoch for base in self.base_lrs]


def test_an_unknown_scheduler_is_written_out() -> None:
    with pytest.raises(InputError, match=r"Halving is not one of torch's schedulers.*required is num_steps ≥ 1"):
        converted_and_kept(Halving, 5)
    kept, live = optimizer_of(), optimizer_of()
    old, new = Halving(kept), Halving(live)
    trained(kept, old, 5), trained(live, new, 5)
    done = drop_momentum(live, new, num_steps=20)
    assert done.factors == pytest.approx([10, 2, 1])
    np.testing.assert_allclose(trained(live, new, 20), np.array(trained(kept, old, 20)) * [10, 2, 1], rtol=1e-12)


def test_one_floor_for_groups_of_different_momentum_is_written_out() -> None:
    make = ONE_FACTOR["cosine, floor"]
    with pytest.raises(InputError, match=r"one eta_min for all groups, whose factors differ \(10, 2, 1\)"):
        converted_and_kept(make, 5)
    kept, live = optimizer_of(), optimizer_of()
    old, new = make(kept), make(live)
    drop_momentum(live, new, num_steps=50)
    np.testing.assert_allclose(trained(live, new, 50), np.array(trained(kept, old, 50)) * [10, 2, 1], rtol=1e-12)


class Metric(lrs.ReduceLROnPlateau):
    """Not torch's, and cannot run ahead."""


def test_what_cannot_be_written_out_says_why() -> None:
    optimizer = optimizer_of()
    with pytest.raises(InputError, match=r"a copy of Metric cannot be run 5 steps ahead: .*metrics"):
        drop_momentum(optimizer, Metric(optimizer), num_steps=5)
    optimizer = optimizer_of()
    scheduler = lrs.OneCycleLR(optimizer, 0.1, 20)
    for wrong in (30, 19):
        with pytest.raises(InputError, match=rf"num_steps is {wrong}, but the OneCycleLR has 20 steps left"):
            drop_momentum(optimizer, scheduler, num_steps=wrong)
    assert type(scheduler) is lrs.OneCycleLR


def test_schedulers_that_do_not_belong_are_refused() -> None:
    optimizer, other = optimizer_of(), optimizer_of()
    scheduler = lrs.StepLR(optimizer, 5)
    with pytest.raises(InputError, match=r"belongs to another optimizer"):
        drop_momentum(other, scheduler)
    with pytest.raises(InputError, match=r"would write its old rates; required is every scheduler"):
        drop_momentum(optimizer)
    with pytest.raises(InputError, match=r"the scheduler is a int.*give scheduler='none' and multiply"):
        drop_momentum(optimizer, 3)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"scheduler is 'None'; required is a scheduler, 'none' or None"):
        drop_momentum(optimizer, "None")  # type: ignore[arg-type]
    assert optimizer.param_groups[0]["momentum"] == 0.9
    assert drop_momentum(optimizer, "none").scheduler is None


@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_converted_scheduler_copies(name: str) -> None:
    optimizer = optimizer_of()
    scheduler = SCHEDULERS[name](optimizer)
    trained(optimizer, scheduler, 5)
    drop_momentum(optimizer, scheduler)
    twin_optimizer, twin = copy.deepcopy((optimizer, scheduler))
    assert isinstance(twin, type(scheduler).__mro__[1])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deepcopy of an optimizer forgets that its steps are watched
        assert trained(twin_optimizer, twin, 9) == trained(optimizer, scheduler, 9)


def test_a_converted_scheduler_pickles() -> None:
    optimizer = optimizer_of()
    scheduler = lrs.CosineAnnealingLR(optimizer, 20)
    drop_momentum(optimizer, scheduler)
    twin_optimizer, twin = pickle.loads(pickle.dumps((optimizer, scheduler)))
    assert isinstance(twin, lrs.CosineAnnealingLR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pickling an optimizer forgets that its steps are watched
        assert trained(twin_optimizer, twin, 9) == trained(optimizer, scheduler, 9)


def test_lightning_and_hugging_face_schedules_are_lambdas() -> None:
    transformers = pytest.importorskip("transformers")
    make = partial(transformers.get_cosine_schedule_with_warmup, num_warmup_steps=5, num_training_steps=NUM_STEPS)
    rates, kept, _ = converted_and_kept(make, 20)
    assert not math.isclose(kept[0, 0], kept[-1, 0])
    np.testing.assert_allclose(rates, kept * [10, 2, 1], rtol=1e-12)


def test_there_and_back_gives_the_same_rates() -> None:
    kept, live = optimizer_of(), optimizer_of()
    old, new = _sequential(kept), _sequential(live)
    trained(kept, old, 5), trained(live, new, 5)
    drop_momentum(live, new)
    with_momentum(live, MOMENTA, new)
    np.testing.assert_allclose(trained(live, new, 40), trained(kept, old, 40), rtol=1e-13)


def _warm_up(o: Optimizer) -> lrs.LRScheduler:
    return lrs.LambdaLR(o, lambda k: min(1, (k + 1) / 8))


class Pair:
    """Two schedulers stepped one after the other by the loop."""

    def __init__(self, *both: lrs.LRScheduler) -> None:
        self.both = both

    def step(self) -> None:
        for each in self.both:
            each.step()


@pytest.mark.parametrize("switch", [0, 5, 20])
def test_several_schedulers_are_carried_over_together(switch: int) -> None:
    kept, live = optimizer_of(), optimizer_of()
    old, new = (Pair(_warm_up(o), lrs.StepLR(o, 10)) for o in (kept, live))
    trained(kept, old, switch), trained(live, new, switch)  # type: ignore[arg-type]
    done = drop_momentum(live, list(new.both))
    assert done.schedulers == new.both
    assert str(done).count("carried over") == 2
    rates = trained(live, new, 40)  # type: ignore[arg-type]
    np.testing.assert_allclose(rates, np.array(trained(kept, old, 40)) * [10, 2, 1], rtol=1e-12)  # type: ignore[arg-type]


def test_a_living_scheduler_that_was_not_given_is_refused_by_name() -> None:
    optimizer = optimizer_of()
    warm_up, main = _warm_up(optimizer), lrs.StepLR(optimizer, 10)
    with pytest.raises(InputError, match=r"LambdaLR of this optimizer is there too and would write its old rates"):
        drop_momentum(optimizer, main)
    with pytest.raises(InputError, match=r"LambdaLR and StepLR of this optimizer are there too"):
        drop_momentum(optimizer)
    assert optimizer.param_groups[0]["momentum"] == 0.9
    del warm_up
    drop_momentum(optimizer, main)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.2 / 8)
    late = _warm_up(optimizer)
    with pytest.raises(InputError, match=r"LambdaLR of this optimizer is there too"):
        with_momentum(optimizer, MOMENTA, main)
    del late


def test_one_that_the_collector_does_not_show_is_still_known_of() -> None:
    optimizer = optimizer_of()
    lrs.StepLR(optimizer, 10)  # gone, but it has left its mark on step
    with pytest.raises(InputError, match=r"one was made on this optimizer and would write its old rates"):
        drop_momentum(optimizer)


def test_one_that_waits_to_be_collected_does_not_count() -> None:
    optimizer = optimizer_of()
    gone = _warm_up(optimizer)
    gone.itself = gone  # type: ignore[attr-defined]
    del gone
    main = lrs.StepLR(optimizer, 10)
    assert drop_momentum(optimizer, main).scheduler is main


def test_several_cannot_be_written_out() -> None:
    optimizer = optimizer_of((0.9,))
    both = [_warm_up(optimizer), lrs.CyclicLR(optimizer, 0.001, 0.02, 6)]
    with pytest.raises(InputError, match=r"written out for one scheduler only, and 2 were given"):
        drop_momentum(optimizer, both, num_steps=10)


class Around(lrs.LRScheduler):
    """Of the user's own, around one of torch's."""

    def __init__(self, optimizer: Optimizer) -> None:
        self.after = lrs.StepLR(optimizer, 4)
        super().__init__(optimizer)

    def get_lr(self) -> list[float]:
        return [base * 0.1 ** (self.last_epoch // 4) for base in self.after.base_lrs]


def test_a_scheduler_inside_the_one_that_is_given_is_part_of_it() -> None:
    kept, live = optimizer_of(), optimizer_of()
    old, new = Around(kept), Around(live)
    drop_momentum(live, new, num_steps=20)
    np.testing.assert_allclose(trained(live, new, 20), np.array(trained(kept, old, 20)) * [10, 2, 1], rtol=1e-12)


@pytest.mark.parametrize(("momenta", "noted"), [((0.9, 0.5), True), ((0.9, 0.9), False)])
def test_the_one_eps_of_plateau_is_noted_where_factors_differ(momenta: tuple[float, ...], noted: bool) -> None:
    optimizer = optimizer_of(momenta)
    scheduler = lrs.ReduceLROnPlateau(optimizer, eps=1e-6)
    note = "ReduceLROnPlateau has one eps for all groups, whose factors differ"
    assert (note in str(drop_momentum(optimizer, scheduler))) is noted
    assert (note in str(with_momentum(optimizer, momenta, scheduler))) is noted
