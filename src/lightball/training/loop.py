"""The loop: what lightball means by training a model."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor

from lightball.errors import InputError
from lightball.oracles import MinibatchStream, Sampling
from lightball.rules import schedules
from lightball.training.curves import Sink, curve_file, tensorboard_events
from lightball.training.evaluation import mean_score
from lightball.training.folder import asked, held, resume, save
from lightball.training.history import History, Point
from lightball.training.recipe import Recipe, require_count
from lightball.training.state import TrainingState, start
from lightball.training.step import take_step
from lightball.training.surroundings import find_device, surroundings_kept
from lightball.workloads import Workload

Accuracies = Literal["always", "ends", "best"]


def train(
    workload: Workload,
    recipe: Recipe,
    seed: int,
    *,
    device: str | torch.device = "cpu",
    folder: Path | None = None,
    checkpoint_every: int | None = None,
    tensorboard: bool = False,
    accuracies: Accuracies = "always",
    on_point: Callable[[Point], None] | None = None,
) -> History:
    """Train the model of ``seed`` by ``recipe``.

    Initial weights and data order are functions of the seed alone, and the same as in the vectorised engine. What
    else is random in the model, such as dropout, draws from torch's global generators, which are seeded for the run
    and come out as they went in.

    Args:
        device: "cpu", "cuda", or one GPU. The data stay where they are; batches are moved.
        folder: where checkpoints (``checkpoints/step-000123``) and the curve (``curve.jsonl``) are written. The same
            call goes on from the newest checkpoint there; on the CPU the result is, to the bit, that of a run that was
            never interrupted. Only one process may use it at a time.
        checkpoint_every: steps between checkpoints; None: an epoch. One is always written after the last step.
        tensorboard: also write events to ``folder/tensorboard``.
        accuracies: "ends" measures validation and test only before the first and after the last step; "best" validation
            at every point, and test only before the first step and where validation is better than ever since, so that
            the test accuracy of the best checkpoint (``History.best``) is known without keeping it.
        on_point: called with each point that is measured in this call.

    A run that fails is a result, see :class:`History`. Cost: forward and backward pass of every minibatch, and a
    forward pass over training, validation and test data at every point; memory beside the data and one micro-batch:
    the weights twice, and once more for momentum.

    Raises:
        InputError: arguments that cannot be used, or a folder that holds another run or cannot be written.
    """
    where = find_device(device)
    workload = workload.of_seed(seed)
    _check_arguments(folder, checkpoint_every, tensorboard, accuracies)
    sampling = Sampling(len(workload.train), recipe.batch_size, recipe.sampling, recipe.drop_last)
    stream = MinibatchStream(sampling, [seed], workload.train.inputs.device)
    steps_per_epoch = recipe.ell * sampling.steps_per_epoch
    num_steps = recipe.epochs * steps_per_epoch
    schedule = schedules.parse(recipe.schedule, num_steps)
    eval_every = recipe.eval_every or steps_per_epoch
    save_every = checkpoint_every or steps_per_epoch

    with surroundings_kept(seed, where), ExitStack() as open_files:
        state = start(workload, recipe, seed, where)
        if folder is not None:
            open_files.enter_context(held(folder))
            this_run = asked(workload, recipe, seed, where, accuracies)
            resume(state, folder, this_run)
        sinks = _open_sinks(open_files, state, folder, tensorboard, on_point)

        def measure() -> None:
            point = _point(state, workload, recipe, state.step / steps_per_epoch)
            at_end = state.step in (0, num_steps)
            if accuracies != "ends" or at_end:
                point = replace(point, validation_accuracy=_accuracy(state, workload, recipe, "validation"))
            better = History((*state.points, point), None).best is point
            if accuracies == "always" or (accuracies == "ends" and at_end) or (accuracies == "best" and better):
                point = replace(point, test_accuracy=_accuracy(state, workload, recipe, "test"))
            state.points.append(point)
            for sink in sinks:
                sink(point)

        if state.step == 0:
            measure()
        while state.step < num_steps:
            lr = recipe.effective_lr * schedule(state.step)
            if not take_step(state, workload, recipe, _minibatches(stream, recipe.ell, state.step), lr):
                return History(tuple(state.points), failed_at=state.step)
            state.step += 1
            last = state.step == num_steps
            if last or state.step % eval_every == 0:
                measure()
            if folder is not None and (last or state.step % save_every == 0):
                save(state, folder, this_run)
        return History(tuple(state.points), failed_at=None)


def _minibatches(stream: MinibatchStream, ell: int, step: int) -> list[Tensor]:
    """The examples of a step: one minibatch, or two for SVAG."""
    return [stream(step)[0]] if ell == 1 else [stream(2 * step)[0], stream(2 * step + 1)[0]]


def _point(state: TrainingState, workload: Workload, recipe: Recipe, epoch: float) -> Point:
    loss = mean_score(state.model, workload.loss, workload.train, _width(recipe), recipe.precision)
    return Point(state.step, epoch, loss, None, None)


def _accuracy(state: TrainingState, workload: Workload, recipe: Recipe, split: Literal["validation", "test"]) -> float:
    return mean_score(state.model, workload.metric, getattr(workload, split), _width(recipe), recipe.precision)


def _width(recipe: Recipe) -> int:
    """Examples that are evaluated at once.

    Without a graph, two micro-batches take no more memory than one does in training. A few examples at a time would
    take long, for no memory worth the name.
    """
    return max(2 * -(-recipe.batch_size // recipe.accumulate), 32)


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


def _check_arguments(folder: Path | None, checkpoint_every: int | None, tensorboard: bool, accuracies: str) -> None:
    if checkpoint_every is not None:
        require_count("checkpoint_every", checkpoint_every)
    if folder is None and (tensorboard or checkpoint_every is not None):
        name = "tensorboard" if tensorboard else "checkpoint_every"
        raise InputError(f"{name} is given without a folder to write to: give folder, or leave {name} out")
    if accuracies not in get_args(Accuracies):
        raise InputError(f"accuracies is {accuracies!r}, but must be {' or '.join(get_args(Accuracies))}")
