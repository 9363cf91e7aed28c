"""Populations: up to millions of trajectories of an oracle, of which only moments are kept.

A population is moved in chunks that fit a core's cache, by the update rule of :mod:`lightball.rules`, and each chunk
leaves nothing but moments of observables at the recorded steps. All arms see the same noise (they are *coupled*), so
that the difference of SGD with and without momentum has a small variance.

    >>> import torch
    >>> from lightball.oracles import Quadratic
    >>> oracle = Quadratic(curvature=torch.ones(1), covariance=1.0, x0=torch.ones(1))
    >>> moments = simulate(
    ...     oracle,
    ...     arms={"sgd": Arm(effective_lr=0.1), "sgdm": Arm(effective_lr=0.1, momentum=0.9)},
    ...     num_steps=20,
    ...     num_trajectories=1000,
    ...     observables={"x": lambda x, m: x["x"][:, 0]},
    ... )
    >>> mean, standard_error = moments.difference("sgdm", "sgd")
    >>> mean.shape
    (21, 1)
"""

from __future__ import annotations

import threading
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch

from lightball.dynamics.population import chunks
from lightball.dynamics.population.chunks import Chunk, Course, Observable, Plan
from lightball.dynamics.population.cuda_graph import stream_of_its_own
from lightball.dynamics.population.partition import prepare
from lightball.dynamics.population.program import Program
from lightball.dynamics.population.recorded import Moments
from lightball.dynamics.population.streaming import Accumulator
from lightball.dynamics.threads import one_torch_thread
from lightball.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from lightball.oracles.protocol import SampledOracle

__all__ = ["Arm", "Moments", "Observable", "simulate"]

_NUM_RECORDS = 51


@dataclass(frozen=True)
class Arm:
    """One algorithm in the canonical form m' = β m + (1 − β) g, x' = x − η m', from m₀ = 0.

    Args:
        effective_lr: effective learning rate η, a number or one for each step.
        momentum: β, a number or one for each step; 0 is SGD.
    """

    effective_lr: ArrayLike
    momentum: ArrayLike = 0.0


class Observer(Protocol):
    """Told how a simulation goes on."""

    def begin(self, phase: str, work: float) -> None:
        """It starts, with so many trajectories to simulate."""
        ...

    def advance(self, work: float) -> None:
        """So many more trajectories are done."""
        ...


def simulate(
    oracle: SampledOracle,
    arms: Mapping[str, Arm],
    num_steps: int,
    num_trajectories: int,
    observables: Mapping[str, Observable],
    record_at: Sequence[int] | None = None,
    coupled: bool = True,
    seed: int = 0,
    device: torch.device | str = "cpu",
    num_groups: int = 256,
    threads: int | None = None,
    width: int | None = None,
    compiled: bool | None = None,
    observer: Observer | None = None,
) -> Moments:
    """Move ``num_trajectories`` of every arm by ``num_steps`` and return the moments of the observables.

    Args:
        oracle: the loss, its noisy gradients and their draws; its tensors lie on ``device``.
        arms: the algorithms, by name.
        num_steps: steps of every arm.
        num_trajectories: of each arm.
        observables: (x, m) → one number for each trajectory, by name.
        record_at: the steps at which observables are taken, 0 being the start; about 50 evenly spaced unless given.
        coupled: whether all arms see the same draws, or each its own.
        seed: the whole result is a function of it and of the arguments above, ``num_groups``, ``width`` and
            ``compiled``, on one kind of device.
        device: where trajectories move.
        num_groups: groups of trajectories whose means are kept, for the bootstrap.
        threads: chunks at a time on the CPU, each in a thread of its own; as many as torch would use unless given.
            It does not change the result.
        width: trajectories of a chunk; from the memory that a step touches unless given.
        compiled: whether inductor compiles the step, which takes 5 to 12 s once; where the work repays it unless given.
        observer: told how it goes on.

    Cost: a noisy gradient for each arm, step and trajectory. Memory: a chunk for each thread, whatever the numbers of
    steps and trajectories, and the :class:`Moments`.

    Raises:
        InputError: an argument cannot be used; the message says which and why.
    """
    _require_positive(
        num_steps=num_steps, num_trajectories=num_trajectories, num_groups=num_groups, threads=threads, width=width
    )
    if not arms or not observables:
        raise InputError("there are no arms or no observables: give at least one of each, by name")
    some = next(iter(oracle.start(1).values()))
    _require_device(some.device, torch.device(device))
    steps = _recorded(num_steps, record_at)
    plan = Plan(
        oracle=oracle,
        courses={name: _course(name, arm, num_steps, some.dtype) for name, arm in arms.items()},
        observables=observables,
        steps=steps,
        coupled=coupled,
        seed=seed,
        num_groups=min(num_groups, num_trajectories),
        device=some.device,
    )
    with one_torch_thread() as torch_threads, stream_of_its_own(plan.device):
        parts, programs = prepare(plan, num_steps, num_trajectories, width, compiled)
        total = Accumulator(len(steps), len(arms), len(observables), plan.num_groups)
        if observer:
            observer.begin("simulating", num_trajectories)
        with closing(_each(plan, parts, programs, threads or torch_threads)) as results:
            for part, seen in zip(parts, results, strict=True):
                total.merge(seen)
                if observer:
                    observer.advance(part.width)
    return total.moments(np.array(steps), tuple(arms), tuple(observables), num_trajectories)


def _each(plan: Plan, parts: Sequence[Chunk], programs: Mapping[int, Program], threads: int) -> Generator[Accumulator]:
    """The moments of each chunk, in their order, computed in so many threads; torch lets them run at the same time."""
    ending = threading.Event()

    def run(part: Chunk) -> Accumulator:
        return chunks.run(plan, part, programs[part.width], cancelled=ending.is_set)

    if min(threads, len(parts)) == 1 or plan.device.type != "cpu":
        yield from map(run, parts)
        return
    with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        try:
            yield from pool.map(run, parts)
        finally:  # after an error or an interruption, what still runs has no use
            ending.set()


def _recorded(num_steps: int, record_at: Sequence[int] | None) -> tuple[int, ...]:
    if record_at is None:
        return tuple(np.unique(np.linspace(0, num_steps, _NUM_RECORDS).round().astype(int)).tolist())
    steps = tuple(int(step) for step in record_at)
    if (
        not steps
        or any(later <= step for step, later in pairwise(steps))
        or not 0 <= steps[0] <= steps[-1] <= num_steps
    ):
        raise InputError(
            f"record_at is {_short(steps)}; required are steps in increasing order, each once, from 0 to num_steps = "
            f"{num_steps}; sorted(set(steps)) orders them"
        )
    return steps


def _course(name: str, arm: Arm, num_steps: int, dtype: torch.dtype) -> Course:
    values = {what: _by_step(f"{what} of arm {name!r}", value, num_steps, what) for what, value in vars(arm).items()}
    for what, value in values.items():
        _require_precision(f"{what} of arm {name!r}", value, what, dtype)
    return Course(**{what: np.broadcast_to(value, (num_steps,)) for what, value in values.items()})


def _require_precision(label: str, values: np.ndarray, what: str, dtype: torch.dtype) -> None:
    """Refuse what the type of the parameters rounds to a number at which nothing moves, or to infinity."""
    rounded = torch.tensor(values).to(dtype).double().numpy()
    lost = rounded >= 1 if what == "momentum" else np.isinf(rounded) | ((rounded == 0) & (values > 0))
    if lost.any():
        short = str(dtype).removeprefix("torch.")
        raise InputError(
            f"{label} is {values[lost].flat[0]}, which {short}, the type of the oracle's parameters, rounds to "
            f"{rounded[lost].flat[0]:g}; build the oracle from an x0 of type float64"
        )


def _by_step(label: str, value: ArrayLike, num_steps: int, what: str) -> np.ndarray:
    """A number, or the value at each step."""
    values = np.asarray(value, dtype=np.float64)
    if values.shape not in ((), (num_steps,)):
        raise InputError(
            f"{label} has shape {values.shape}; required is a number, or one for each of {num_steps} steps"
        )
    fine = np.isfinite(values) & (values >= 0) & ((values < 1) | (what == "effective_lr"))
    if not fine.all():
        required = "a finite number ≥ 0" if what == "effective_lr" else "0 ≤ momentum < 1"
        raise InputError(f"{label} is {values[~fine].flat[0]:g}; required is {required} at every step")
    return values


def _require_positive(**counts: int | None) -> None:
    for name, value in counts.items():
        if value is not None and value < 1:
            raise InputError(f"{name} is {value}; required is a whole number ≥ 1")


def _require_device(found: torch.device, device: torch.device) -> None:
    if found.type != device.type or device.index not in (None, found.index):
        raise InputError(
            f"the oracle's parameters lie on {str(found)!r}, but trajectories are to move on {str(device)!r}: build "
            "the oracle from tensors on that device"
        )


def _short(steps: tuple[int, ...]) -> str:
    return str(list(steps)) if len(steps) <= 8 else f"[{steps[0]}, {steps[1]}, …, {steps[-1]}]"
