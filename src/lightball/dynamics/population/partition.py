"""How a population is cut into chunks, and whether their step is compiled: from shapes alone, so that runs repeat."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from lightball.dynamics.graph import bytes_touched
from lightball.dynamics.population.chunks import Chunk, Plan, Trajectories
from lightball.dynamics.population.program import Program
from lightball.dynamics.stepper import compiler_available, trace
from lightball.errors import InputError, reason_of

if TYPE_CHECKING:
    from torch import Tensor

    from lightball.oracles.protocol import SampledOracle

# What a step of a chunk touches, intermediate results included: on a CPU a quarter of the population's within these
# bounds, below which it is bound by the overhead of calls, and above which by memory; a share of a GPU's memory.
_CPU_BYTES = (2**20, 8 * 2**20)
_CUDA_SHARE = 1 / 16
# Compiling takes 5 to 12 s, and saves a fifth of the time of a step without or more, which touches some 20 GB/s.
_BYTES_WORTH_COMPILING = 10**12
# As torch advises before a capture: libraries choose and load kernels in the first few.
_WARM_UP_STEPS = 3


@torch.no_grad()
def prepare(
    plan: Plan, num_steps: int, num_trajectories: int, width: int | None, compiled: bool | None
) -> tuple[list[Chunk], dict[int, Program]]:
    """The chunks, and the program for each of their widths: programs are made in one thread.

    Chunks have ``width`` trajectories but for the last, which has what is left, and is not worth compiling for.
    """
    per_trajectory = _bytes_of_a_step(plan)
    if width is None:
        width = _width(per_trajectory, num_trajectories, plan.device)
    firsts = range(0, num_trajectories, width)
    parts = [Chunk(number, first, min(width, num_trajectories - first)) for number, first in enumerate(firsts)]
    if compiled is None:
        work = per_trajectory * num_trajectories * num_steps * len(plan.courses)
        compiled = plan.device.type == "cpu" and work > _BYTES_WORTH_COMPILING and compiler_available()
    programs = {}
    for each in {part.width for part in parts}:
        arm, sample = _first(plan, each)
        with _tracing(plan.oracle, arm, sample):
            program = Program(plan.oracle, arm.x, arm.states, sample, arm.hyper, compiled and each == parts[0].width)
        if plan.device.type == "cuda":  # nothing may be loaded for the first time while a graph is captured
            for _ in range(_WARM_UP_STEPS):
                arm.prepare(program)
                arm.move(sample, program)
        programs[each] = program
    return parts, programs


def _width(per_trajectory: int, num_trajectories: int, device: torch.device) -> int:
    """Chunks of the right size; one, two, or a multiple of four, which two or four threads share out evenly."""
    of_all = per_trajectory * num_trajectories
    if device.type == "cuda":
        most = int(_CUDA_SHARE * torch.cuda.get_device_properties(device).total_memory)
    else:
        most = min(max(of_all // 4, _CPU_BYTES[0]), _CPU_BYTES[1])
    count = -(-of_all // most)
    if count > 2:
        count = 4 * -(-count // 4)
    return -(-num_trajectories // count)


def _bytes_of_a_step(plan: Plan) -> int:
    """Per trajectory, of one arm."""
    arm, sample = _first(plan, 2)
    with _tracing(plan.oracle, arm, sample):
        graph = trace(plan.oracle, arm.x, arm.states, sample, arm.hyper, with_losses=False)
    return max(bytes_touched(graph) // 2, 1)


@contextmanager
def _tracing(oracle: SampledOracle, arm: Trajectories, sample: Tensor) -> Iterator[None]:
    """Says what to change where a step cannot be traced: the user's own code runs here, anything can be raised."""
    name = type(oracle).__name__
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        try:
            oracle.noisy_gradient({name: value.clone() for name, value in arm.x.items()}, sample)
        except Exception as itself:
            raise InputError(
                f"the noisy gradient of {name} failed with {type(itself).__name__}: {reason_of(itself)}; required are "
                f"a loss and a noise for any number of replicas at once, here {len(sample)}"
            ) from itself
        # It fails only while it is traced, when tensors have no values.
        raise InputError(
            f"a step of {name} cannot be traced ({_in_short(error)}): write its loss and noise without if, while, "
            "float(), .item() or .numpy() of tensors; torch.where(condition, a, b) chooses for each replica"
        ) from error


def _in_short(error: Exception) -> str:
    reason = reason_of(error)
    return "it depends on values of tensors" if "tracing tensor" in reason else reason


def _first(plan: Plan, width: int) -> tuple[Trajectories, Tensor]:
    """Trajectories at their start and a sample, of the first arm and from a generator of their own."""
    arm = Trajectories(plan.oracle, next(iter(plan.courses.values())), width)
    try:
        sample = plan.oracle.draw(width, torch.Generator(plan.device).manual_seed(0))
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            f"the draw of {type(plan.oracle).__name__} failed with {type(error).__name__}: {reason_of(error)}; "
            f"required are samples for any number of replicas, here {width}, from a generator on {str(plan.device)!r}"
        ) from error
    return arm, sample
