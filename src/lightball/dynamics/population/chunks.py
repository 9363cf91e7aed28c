"""A chunk of a population: so many trajectories of every arm, moved together from the start to the last step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from lightball.dynamics.population.cuda_graph import captured
from lightball.dynamics.population.program import Program
from lightball.dynamics.population.streaming import Accumulator
from lightball.dynamics.stepper import States
from lightball.errors import InputError, reason_of
from lightball.oracles.seeds import seed_of
from lightball.rules import Hyperparameters, canonical, kernel

if TYPE_CHECKING:
    from jaxtyping import Float, Float64

    from lightball.oracles.protocol import SampledOracle, Tensors

Observable = Callable[["Tensors", "Tensors"], "Float[Tensor, 'replica']"]
"""(parameters x, momentum buffers m) → one number for each trajectory; it must not write into them."""


@dataclass(frozen=True)
class Course:
    """The hyperparameters of an arm by step: effective rates and momenta, ``Float64[ndarray, "step"]`` each."""

    effective_lr: Float64[np.ndarray, " step"]
    momentum: Float64[np.ndarray, " step"]


@dataclass(frozen=True)
class Chunk:
    """Trajectories ``first`` to ``first + width − 1`` of the population; ``number`` names their noise."""

    number: int
    first: int
    width: int


@dataclass(frozen=True)
class Plan:
    """What is simulated, without its trajectories: the same for every chunk."""

    oracle: SampledOracle
    courses: Mapping[str, Course]
    observables: Mapping[str, Observable]
    steps: tuple[int, ...]
    coupled: bool
    seed: int
    num_groups: int
    device: torch.device


class Trajectories:
    """Where one arm of a chunk is: parameters, buffers (m₀ = 0) and the hyperparameters of its next step."""

    def __init__(self, oracle: SampledOracle, course: Course, width: int) -> None:
        self.x: Tensors = oracle.start(width)
        self.states: States = {name: kernel.init(value) for name, value in self.x.items()}
        some = next(iter(self.x.values()))
        # Tensors of no dimension, written into when a value changes: a number would be traced anew.
        self.effective_lr, self.momentum = (
            some.new_tensor(values[0]) for values in (course.effective_lr, course.momentum)
        )
        self._course = course
        self._now: tuple[float, float] | None = None
        self._places = [*self.x.values(), *self.buffers.values()]
        self._constants: Sequence[Tensor] = ()

    @property
    def hyper(self) -> Hyperparameters:
        return canonical(self.effective_lr, self.momentum)

    @property
    def buffers(self) -> Tensors:
        return {name: state["momentum_buffer"] for name, state in self.states.items()}

    def set(self, step: int) -> bool:
        """Take over the hyperparameters of a step; whether they changed."""
        at = (self._course.effective_lr[step], self._course.momentum[step])
        if at == self._now:
            return False
        self.effective_lr.fill_(at[0])
        self.momentum.fill_(at[1])
        self._now = at
        return True

    def prepare(self, program: Program) -> None:
        """Compute what the program takes of the hyperparameters, once they changed."""
        # canonical: dampening is momentum
        self._constants = program.constants_of(self.effective_lr, self.momentum, self.momentum)

    def move(self, sample: Tensor, program: Program) -> None:
        """One step of the update rule, in place."""
        program(sample, *self._places, *self._constants)


@torch.no_grad()
def run(plan: Plan, chunk: Chunk, program: Program, cancelled: Callable[[], bool]) -> Accumulator:
    """Simulate a chunk and return its moments; stops early, with what it has, once ``cancelled`` says so."""
    arms = [Trajectories(plan.oracle, course, chunk.width) for course in plan.courses.values()]
    generators = _generators(plan, chunk)
    move = mover(arms, plan.oracle, generators, program)
    seen = Accumulator(len(plan.steps), len(arms), len(plan.observables), plan.num_groups)
    step = 0
    for record, until in enumerate(plan.steps):
        while step < until:
            if cancelled():
                return seen
            move(step)
            step += 1
        values, finite = observe(arms, plan.observables, chunk.width)
        seen.add(record, values, finite, chunk.first)
    return seen


def mover(
    arms: Sequence[Trajectories], oracle: SampledOracle, generators: Sequence[torch.Generator], program: Program
) -> Callable[[int], None]:
    """What moves every arm by one step: one generator means one draw for all of them, else each has its own.

    On a GPU the step is captured, with all of its draws, since its launches take longer than its work.
    """
    width = len(next(iter(arms[0].x.values())))

    def move() -> None:
        sample = oracle.draw(width, generators[0])
        for number, arm in enumerate(arms):
            if number and len(generators) > 1:
                sample = oracle.draw(width, generators[number])
            arm.move(sample, program)

    def move_from_hyperparameters() -> None:
        for arm in arms:
            arm.prepare(program)
        move()

    if _launches_dominate(generators[0].device):
        replay = captured(move_from_hyperparameters, generators)

        def step_on_gpu(step: int) -> None:
            for arm in arms:
                arm.set(step)
            replay()

        return step_on_gpu

    def step_on_cpu(step: int) -> None:
        for arm in arms:
            if arm.set(step):
                arm.prepare(program)
        move()

    return step_on_cpu


def _launches_dominate(device: torch.device) -> bool:
    return device.type == "cuda"


def observe(
    arms: Sequence[Trajectories], observables: Mapping[str, Observable], width: int
) -> tuple[np.ndarray, np.ndarray]:
    """Values (replica, arm, observable) in float64, and whether parameters and values are finite (replica, arm)."""
    values, finite = [], []
    for arm in arms:
        of_arm = [_value(name, observable, arm, width) for name, observable in observables.items()]
        values.append(torch.stack(of_arm, dim=1))
        whole = torch.stack([x.reshape(width, -1).isfinite().all(dim=1) for x in arm.x.values()]).all(dim=0)
        finite.append(whole & values[-1].isfinite().all(dim=1))
    return torch.stack(values, dim=1).cpu().numpy(), torch.stack(finite, dim=1).cpu().numpy()


def _value(name: str, observable: Observable, arm: Trajectories, width: int) -> Float64[Tensor, "replica"]:
    try:
        value = observable(arm.x, arm.buffers)
    except Exception as error:  # the user's own code runs here: anything can be raised
        raise InputError(
            f"the observable {name!r} failed with {type(error).__name__}: {reason_of(error)}; required is a function "
            "(x, m) → one number for each trajectory, of tensors by the names of the oracle's parameters "
            f"({', '.join(arm.x)})"
        ) from error
    if not isinstance(value, Tensor) or value.shape != (width,):
        got = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        raise InputError(
            f"the observable {name!r} gave {got} for {width} trajectories: required is one number for each, "
            f"a tensor of shape ({width},); sum over the other axes"
        )
    return value.double()


def _generators(plan: Plan, chunk: Chunk) -> list[torch.Generator]:
    axes: dict[str, str | int] = {"use": "population", "seed": plan.seed, "chunk": chunk.number}
    named = [axes] if plan.coupled else [{**axes, "arm": name} for name in plan.courses]
    return [torch.Generator(plan.device).manual_seed(seed_of(**each)) for each in named]
