"""Contract: a population moves as a literal loop over the same draws does, and its moments are those of that loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor

from lightball.dynamics.population import Arm, Moments, chunks, partition, simulate, simulation
from lightball.errors import InputError
from lightball.oracles import seed_of

STEPS, TRAJECTORIES = 30, 700
GRID = (0, 1, 7, STEPS)
LR = 0.2 * np.cos(np.linspace(0, 1.5, STEPS))
BETA = np.linspace(0.3, 0.95, STEPS)
ARMS = {"sgd": Arm(0.1), "sgdm": Arm(0.1, 0.9), "scheduled": Arm(LR, BETA)}
OBSERVABLES = {
    "first": lambda x, m: x["x"][:, 0],
    "loss": lambda x, m: (x["x"] ** 4).sum(1) / 4,
    "buffer": lambda x, m: m["x"][:, 1],
}


@dataclass(frozen=True)
class Quartic:
    """L(x) = Σ xᵢ⁴ / 4, with uniform noise that grows with x."""

    dtype: torch.dtype = torch.float64

    def start(self, num_replicas: int) -> dict[str, Tensor]:
        return {"x": torch.tensor([1.0, -0.5, 0.25], dtype=self.dtype).repeat(num_replicas, 1)}

    def draw(self, num_replicas: int, generator: torch.Generator) -> Tensor:
        return torch.rand((num_replicas, 3), generator=generator, dtype=self.dtype) - 0.5

    def noisy_gradient(self, x: dict[str, Tensor], sample: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return self.loss(x), {"x": x["x"] ** 3 + (1 + x["x"]) * sample}

    def loss(self, x: dict[str, Tensor]) -> Tensor:
        return (x["x"] ** 4).sum(1) / 4


def draws(oracle: Quartic, width: int, arm: str | None = None) -> Iterator[Tensor]:
    """The noise of every chunk, for all trajectories, step by step."""
    named = {} if arm is None else {"arm": arm}
    sizes = [min(width, TRAJECTORIES - first) for first in range(0, TRAJECTORIES, width)]
    generators = [
        torch.Generator().manual_seed(seed_of(use="population", seed=5, chunk=c, **named)) for c in range(len(sizes))
    ]
    while True:
        yield torch.cat([oracle.draw(n, g) for n, g in zip(sizes, generators, strict=True)])


def literal(width: int = 200, coupled: bool = True) -> np.ndarray:
    """Values (record, arm, trajectory, observable) of m' = β m + (1 − β) g, x' = x − η m', written out."""
    oracle, values = Quartic(), []
    for name, arm in ARMS.items():
        noise = draws(oracle, width, None if coupled else name)
        lr, beta = np.broadcast_to(arm.effective_lr, STEPS), np.broadcast_to(arm.momentum, STEPS)
        x = oracle.start(TRAJECTORIES)["x"]
        m = torch.zeros_like(x)
        of_arm = []
        for k in range(STEPS + 1):
            if k in GRID:
                of_arm.append(np.stack([f({"x": x}, {"x": m}) for f in OBSERVABLES.values()], axis=-1))
            if k < STEPS:
                g = oracle.noisy_gradient({"x": x}, next(noise))[1]["x"]
                m = beta[k] * m + (1 - beta[k]) * g
                x = x - lr[k] * m
        values.append(of_arm)
    return np.array(values).swapaxes(0, 1)


def population(**options: object) -> Moments:
    settings = {"record_at": GRID, "seed": 5, "width": 200, "num_groups": 16} | options
    return simulate(Quartic(), ARMS, STEPS, TRAJECTORIES, OBSERVABLES, **settings)


@pytest.mark.parametrize("coupled", [True, False])
def test_moments_are_those_of_the_literal_loop(coupled: bool) -> None:
    moments, values = population(coupled=coupled), literal(coupled=coupled)
    np.testing.assert_allclose(moments.mean, values.mean(axis=2).swapaxes(0, 1), rtol=1e-12, atol=1e-14)
    for record in range(len(GRID)):
        flat = values[record].swapaxes(0, 1).reshape(TRAJECTORIES, -1)
        np.testing.assert_allclose(moments.covariance[record], np.cov(flat.T), rtol=1e-9, atol=1e-14)
    assert moments.steps.tolist() == list(GRID)
    assert not moments.diverged.any()


def test_groups_are_disjoint_and_cover_the_population() -> None:
    moments, values = population(), literal()
    assert moments.group_sizes.sum() == TRAJECTORIES
    for group in (0, 3, 15):
        mean = values[:, :, group::16].mean(axis=2).swapaxes(0, 1)
        np.testing.assert_allclose(moments.groups[group], mean, rtol=1e-12, atol=1e-14)
    together = np.average(moments.groups, axis=0, weights=moments.group_sizes)
    np.testing.assert_allclose(together, moments.mean, rtol=1e-12, atol=1e-14)


def test_the_difference_of_arms_has_the_error_of_paired_values() -> None:
    mean, error = population().difference("sgdm", "scheduled")
    paired = literal()[:, 1] - literal()[:, 2]
    np.testing.assert_allclose(mean, paired.mean(axis=1), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(error, paired.std(axis=1, ddof=1) / TRAJECTORIES**0.5, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_without_momentum_it_is_sgd_to_the_bit(dtype: torch.dtype) -> None:
    """Scheduled momenta that are all 0, and the first step of any arm with β₀ = 0, are x − η g, nothing else."""
    oracle, lr = Quartic(dtype), torch.tensor(0.1, dtype=dtype)
    generator = torch.Generator().manual_seed(seed_of(use="population", seed=0, chunk=0))
    x = oracle.start(1)["x"]
    for _ in range(STEPS):
        g = oracle.noisy_gradient({"x": x}, oracle.draw(1, generator))[1]["x"]
        x = torch.addcmul(x, -lr, g)
    arms = {"sgd": Arm(0.1), "by step": Arm(np.full(STEPS, 0.1), np.zeros(STEPS))}
    coordinates = {str(i): lambda x, m, i=i: x["x"][:, i] for i in range(3)}
    moments = simulate(oracle, arms, STEPS, 1, coordinates)
    assert (moments.mean[:, -1] == x[0].double().numpy()).all()


def test_the_result_does_not_depend_on_threads() -> None:
    before = torch.get_num_threads()
    one, three = population(threads=1, width=90), population(threads=3, width=90)
    for name in ("mean", "covariance", "groups", "diverged"):
        assert (getattr(one, name) == getattr(three, name)).all()
    assert torch.get_num_threads() == before
    # control: other chunks mean other draws
    assert (population(width=140).mean[:, -1] != one.mean[:, -1]).all()


@pytest.mark.parametrize("coupled", [True, False])
def test_what_is_captured_on_a_gpu_is_the_whole_step(coupled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A replay runs what was captured, and nothing else: here on the CPU, where the step is called instead."""
    launched = population(coupled=coupled)
    captures = []

    def captured(step: Callable[[], None], generators: Sequence[torch.Generator]) -> Callable[[], None]:
        captures.append(len(generators))
        return step

    monkeypatch.setattr(chunks, "_launches_dominate", lambda device: True)
    monkeypatch.setattr(chunks, "captured", captured)
    replayed = population(coupled=coupled)
    assert captures == [1 if coupled else len(ARMS)] * 4  # once a chunk, with all generators
    assert (replayed.mean == launched.mean).all()
    assert (replayed.covariance == launched.covariance).all()


def test_all_of_a_population_is_on_one_stream_of_the_oracles_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Warm-up, capture, replays and observables: captures on a GPU ask for it; here on the CPU."""
    entered, happened = [], []

    @contextmanager
    def entering(device: torch.device) -> Iterator[None]:
        entered.append(device)
        yield
        entered.append(None)

    def noted(name: str) -> None:
        happened.append((name, entered == [torch.device("cpu")]))

    def captured(step: Callable[[], None], generators: Sequence[torch.Generator]) -> Callable[[], None]:
        noted("capture")
        return lambda: (noted("replay"), step())[1]

    def prepared(*arguments: object) -> object:
        noted("prepare")
        return partition.prepare(*arguments)

    monkeypatch.setattr(simulation, "stream_of_its_own", entering)
    monkeypatch.setattr(simulation, "prepare", prepared)
    monkeypatch.setattr(chunks, "_launches_dominate", lambda device: True)
    monkeypatch.setattr(chunks, "captured", captured)
    simulate(Quartic(), ARMS_OF_THREE, 3, 20, {"x": lambda x, m: (noted("observe"), x["x"][:, 0])[1]}, threads=1)
    assert {name for name, _ in happened} == {"prepare", "capture", "replay", "observe"}
    assert all(inside for _, inside in happened)
    assert entered == [torch.device("cpu"), None]


def test_coupled_arms_see_the_same_draws() -> None:
    twins = {"a": Arm(0.1, 0.5), "b": Arm(0.1, 0.5)}
    x = {"x": OBSERVABLES["first"]}
    coupled = simulate(Quartic(), twins, STEPS, 500, x, width=100)
    assert not coupled.difference_variance("a", "b").any()
    apart = simulate(Quartic(), twins, STEPS, 500, x, width=100, coupled=False)
    variance = apart.variance[0, -1, 0] + apart.variance[1, -1, 0]
    # The variance of 500 values is within 30 % of its mean but for one seed in a million.
    assert abs(apart.difference_variance("a", "b")[-1, 0] / variance - 1) < 0.3


def test_what_diverges_is_counted_and_left_out() -> None:
    def escapes(x: dict[str, Tensor], m: dict[str, Tensor]) -> Tensor:
        return x["x"][:, 0]

    arms = {"stable": Arm(0.1), "some": Arm(1.2), "all": Arm(50.0)}
    moments = simulate(Quartic(), arms, 60, 400, {"x": escapes}, width=100, num_groups=10)
    for name in ("mean", "covariance", "groups", "standard_error"):
        assert not np.isnan(getattr(moments, name)).any()
    last = moments.diverged[:, -1]
    assert last[0] == 0
    assert 0 < last[1] < 400
    assert last[2] == 400
    assert (np.diff(moments.diverged, axis=1) >= 0).all()
    assert np.isfinite(moments.mean[1, -1, 0])
    assert np.isposinf(moments.mean[2, -1, 0])
    # Means of different survivors have no difference; before anything diverged there is one.
    for other in ("all", "some"):
        assert all(np.isposinf(v[-1, 0]) for v in moments.difference(other, "stable"))
        assert all(np.isfinite(v[0, 0]) for v in moments.difference(other, "stable"))
    # One arm does not disturb another.
    alone = simulate(Quartic(), {"stable": Arm(0.1)}, 60, 400, {"x": escapes}, width=100)
    assert (alone.mean[0] == moments.mean[0]).all()


def test_the_observer_hears_of_every_trajectory() -> None:
    class Heard:
        work, done = 0.0, 0.0

        def begin(self, phase: str, work: float) -> None:
            self.work = work

        def advance(self, work: float) -> None:
            self.done += work

    heard = Heard()
    population(observer=heard)
    assert heard.work == heard.done == TRAJECTORIES


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_steps": 0}, "num_steps is 0; required is a whole number ≥ 1"),
        ({"num_trajectories": 0}, "num_trajectories is 0; required is a whole number ≥ 1"),
        ({"threads": 0}, "threads is 0; required is a whole number ≥ 1"),
        ({"arms": {}}, "there are no arms or no observables: give at least one of each, by name"),
        (
            {"arms": {"a": Arm([0.1, 0.2])}},
            r"lr of arm 'a' has shape \(2,\); required is a number, or one for each of 3",
        ),
        ({"arms": {"a": Arm(0.1, 1.0)}}, "momentum of arm 'a' is 1; required is 0 ≤ momentum < 1 at every step"),
        ({"arms": {"a": Arm([0.1, np.nan, 0.1])}}, "lr of arm 'a' is nan; required is a finite number ≥ 0 at every"),
        (
            {"record_at": [0, 2, 2]},
            r"record_at is \[0, 2, 2\]; required are steps in increasing order, each once, from 0 to num_steps = 3; "
            r"sorted\(set\(steps\)\) orders them",
        ),
        ({"record_at": [4]}, r"record_at is \[4\]; required are .* from 0 to num_steps = 3"),
        ({"observables": {"v": lambda x, m: x["x"]}}, r"the observable 'v' gave shape \(4, 3\) for 4 trajectories"),
        ({"observables": {"v": lambda x, m: 1.0}}, r"the observable 'v' gave float for 4 trajectories"),
        ({"device": "meta"}, "the oracle's parameters lie on 'cpu', but trajectories are to move on 'meta'"),
    ],
)
def test_what_cannot_be_simulated_is_refused(options: dict[str, object], message: str) -> None:
    settings = {"arms": ARMS_OF_THREE, "num_steps": 3, "num_trajectories": 4, "observables": OBSERVABLES} | options
    with pytest.raises(InputError, match=message):
        simulate(Quartic(), **settings)


ARMS_OF_THREE = {"sgd": Arm(0.1), "sgdm": Arm([0.1, 0.1, 0.2], [0.9, 0.8, 0.7])}


def test_an_arm_that_is_not_there_is_named() -> None:
    oracle = Quartic(torch.float64)
    moments = simulate(oracle, {"a": Arm(0.1), "b": Arm(0.1, 0.9)}, 2, 50, OBSERVABLES)
    with pytest.raises(InputError) as error:
        moments.difference("a", "c")
    assert str(error.value) == "there is no arm 'c'; required is one of a, b"


def test_one_trajectory_tells_no_standard_error() -> None:
    moments = simulate(Quartic(torch.float64), {"a": Arm(0.1), "b": Arm(0.1, 0.9)}, 2, 1, OBSERVABLES)
    assert np.isinf(moments.standard_error).all()
    assert np.isinf(moments.difference("a", "b")[1]).all()
