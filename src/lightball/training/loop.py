"""The loop: what lightball means by training a model."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import get_args

import torch

from lightball.errors import InputError, OutOfTime
from lightball.rules import schedules
from lightball.training.curves import Sink, curve_file, tensorboard_events
from lightball.training.folder import asked, open_folder
from lightball.training.history import History, Point
from lightball.training.keeping import Keeper
from lightball.training.measuring import Accuracies, measure
from lightball.training.minibatches import Minibatches, require_divisible, sampling_of
from lightball.training.ranks import Ranks
from lightball.training.recipe import Recipe, require_count, require_seconds
from lightball.training.state import TrainingState, start
from lightball.training.step import failed_at, move
from lightball.training.surroundings import find_device, surroundings_kept
from lightball.workloads import Workload

__all__ = ["Accuracies", "train"]

# On a GPU, looking at a loss waits for the step. Between two looks so many steps can be under way.
_STEPS_UNSEEN = 32


def train(
    workload: Workload,
    recipe: Recipe,
    seed: int,
    *,
    device: str | torch.device = "cpu",
    folder: Path | None = None,
    checkpoint_every: int | None = None,
    checkpoint_seconds: float | None = None,
    tensorboard: bool = False,
    accuracies: Accuracies = "always",
    on_point: Callable[[Point], None] | None = None,
    deadline: float | None = None,
    ranks: Ranks | None = None,
) -> History:
    """Train the model of ``seed`` by ``recipe``.

    Initial weights and data order are functions of the seed alone, and the same as in the vectorised engine. What
    else is random in the model, such as dropout, draws from torch's global generators, which are seeded for the run
    and come out as they went in.

    Args:
        device: "cpu", "cuda", or one GPU. The data stay where they are; batches are moved.
        folder: where checkpoints (``checkpoints/step-000123``) and the curve (``curve.jsonl``) are written. The same
            call goes on from the newest checkpoint there; on the CPU the result is, to the bit, that of a run that was
            never interrupted. Only one process may use it at a time, or the processes of one run.
        checkpoint_every: steps between checkpoints; None: an epoch, or no number where ``checkpoint_seconds`` is given.
            One is always written after the last step.
        checkpoint_seconds: write one, too, when so many seconds have passed since the last.
        tensorboard: also write events to ``folder/tensorboard``.
        accuracies: "ends" measures validation and test only before the first and after the last step; "best" validation
            at every point, and test only before the first step and where validation is better than ever since, so that
            the test accuracy of the best checkpoint (``History.best``) is known without keeping it.
        on_point: called with each point that is measured in this call, in each of several processes.
        deadline: a ``time.time()``. A run that is not at its end at the first step after it writes a checkpoint, if it
            has a folder, and raises `OutOfTime`.
        ranks: the processes that train this one model, each of which makes this call: see
            :func:`lightball.training.ranks.find_ranks`. Their device takes the place of ``device``. Every micro-batch
            is divided evenly among them, in order, and so is evaluation; gradients and losses are summed, so that the
            result, which all of them return, is that of one process to rounding. The first one writes the folder.
            A run may go on in another number of processes. Generators are seeded alike in all of them: layers that
            draw must draw by example, or each part of a batch gets the same draws.

    A run that fails is a result, see :class:`History`. Cost: forward and backward pass of every minibatch, and a
    forward pass over training (or measured), validation and test data at every point; memory beside the data and one
    micro-batch: the weights twice, and once more for momentum.

    Raises:
        InputError: arguments that cannot be used, or a folder that holds another run or cannot be written.
        OutOfTime: the deadline has passed.
        ConnectionError: another of the processes has ended.
    """
    where = find_device(device if ranks is None else ranks.device)
    workload = workload.of_seed(seed)
    _check_arguments(folder, checkpoint_every, checkpoint_seconds, tensorboard, accuracies)
    sampling = sampling_of(workload, recipe)
    if ranks is not None:
        require_divisible(sampling, recipe, ranks)
    steps_per_epoch = recipe.ell * sampling.steps_per_epoch
    num_steps = recipe.epochs * steps_per_epoch if recipe.num_steps is None else recipe.ell * recipe.num_steps
    eval_every = recipe.eval_every or steps_per_epoch

    with surroundings_kept(seed, where), ExitStack() as open_files:
        state = start(workload, recipe, seed, where, ranks)
        this_run = {}
        if folder is not None:
            this_run = asked(workload, recipe, seed, where, accuracies)
            open_folder(open_files, state, folder, this_run)
        written = folder if ranks is None or ranks.rank == 0 else None
        sinks = _open_sinks(open_files, state, written, tensorboard, on_point)
        if checkpoint_every is None and checkpoint_seconds is None:
            checkpoint_every = steps_per_epoch
        keeper = Keeper(state, written, this_run, checkpoint_every, checkpoint_seconds)
        look_every = _look_every(where, ranks)
        minibatches = Minibatches(state, workload, recipe, seed, num_steps)
        schedule = schedules.parse(recipe.schedule, num_steps)

        def take_point() -> None:
            at_end = state.step in (0, num_steps)
            point = measure(state, workload, recipe, accuracies, state.step / steps_per_epoch, at_end)
            state.points.append(point)
            for sink in sinks:
                sink(point)

        if not state.points:
            take_point()
        while state.step < num_steps and not _is_over(deadline, ranks):
            lr = recipe.effective_lr * schedule(state.step)
            move(state, workload, recipe, minibatches(state.step), lr)
            state.step += 1
            last = state.step == num_steps
            measuring, keeping = last or state.step % eval_every == 0, last or keeper.is_due()
            looking = measuring or keeping or state.step % look_every == 0
            if looking and (failed := failed_at(state)) is not None:
                return History(tuple(state.points), failed)
            if measuring:
                take_point()
            if keeping:
                keeper.keep()
        if (failed := failed_at(state)) is not None:
            return History(tuple(state.points), failed)
        if state.step < num_steps:
            keeper.keep()
            raise OutOfTime(
                f"the time is up after {state.step} of {num_steps} steps"
                + (f": the same call goes on from there, in {str(folder)!r}" if folder else "")
            )
        return History(tuple(state.points), failed_at=None)


def _look_every(device: torch.device, ranks: Ranks | None) -> int:
    """Steps between looks at the losses. Several processes must stop at one step, and so look at each."""
    return _STEPS_UNSEEN if device.type == "cuda" and ranks is None else 1


def _is_over(deadline: float | None, ranks: Ranks | None) -> bool:
    """Whether the deadline has passed: for all of several processes as soon as it has for one."""
    over = deadline is not None and time.time() >= deadline
    return over if ranks is None or deadline is None else ranks.any(over)


def _open_sinks(
    open_files: ExitStack,
    state: TrainingState,
    folder: Path | None,
    tensorboard: bool,
    on_point: Callable[[Point], None] | None,
) -> list[Sink]:
    """Where points go, the caller last."""
    sinks: list[Sink] = []
    if folder is not None:
        sinks.append(open_files.enter_context(curve_file(folder / "curve.jsonl", state.points)))
        if tensorboard:
            sinks.append(open_files.enter_context(tensorboard_events(folder / "tensorboard", state.points)))
    return sinks if on_point is None else [*sinks, on_point]


def _check_arguments(
    folder: Path | None,
    checkpoint_every: int | None,
    checkpoint_seconds: float | None,
    tensorboard: bool,
    accuracies: str,
) -> None:
    if checkpoint_every is not None:
        require_count("checkpoint_every", checkpoint_every)
    if checkpoint_seconds is not None:
        require_seconds("checkpoint_seconds", checkpoint_seconds)
    given = {
        "tensorboard": tensorboard,
        "checkpoint_every": checkpoint_every is not None,
        "checkpoint_seconds": checkpoint_seconds is not None,
    }
    if folder is None and any(given.values()):
        name = next(name for name, is_given in given.items() if is_given)
        raise InputError(f"{name} is given without a folder to write to: give folder, or leave {name} out")
    if accuracies not in get_args(Accuracies):
        raise InputError(f"accuracies is {accuracies!r}, but must be {' or '.join(get_args(Accuracies))}")
