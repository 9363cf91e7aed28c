"""One training step: gradients of a minibatch, clipped, and the update rule."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from lightball.oracles import svag_weights
from lightball.training.batch_norm import statistics_frozen, statistics_kept
from lightball.training.evaluation import scores
from lightball.training.ranks import Ranks, sum_gradients
from lightball.training.recipe import Recipe
from lightball.training.state import TrainingState
from lightball.training.updates import update
from lightball.workloads import Workload

if TYPE_CHECKING:
    from jaxtyping import Int


def take_step(
    state: TrainingState,
    workload: Workload,
    recipe: Recipe,
    minibatches: Sequence[Int[Tensor, "batch"]],
    effective_lr: float,
) -> bool:
    """Move the model by one step of the recipe, of two minibatches for SVAG; False if it cannot go on from here.

    ``effective_lr`` is that of ell = 1.
    """
    move(state, workload, recipe, minibatches, effective_lr)
    return failed_at(state) is None


def move(
    state: TrainingState,
    workload: Workload,
    recipe: Recipe,
    minibatches: Sequence[Int[Tensor, "batch"]],
    effective_lr: float,
) -> None:
    """:func:`take_step`, of which :func:`failed_at` tells later whether it could be made.

    In float16, a step whose gradients overflow is skipped: weights and momentum stay, and the loss scale halves.
    (Buffers keep what the forward pass, which did not overflow, wrote into them.)
    """
    passes = partial(_passes, state, workload, recipe, minibatches)
    effective_lr /= recipe.ell
    if state.in_backward is not None:
        num_passes = sum(len(micro_batches(batch, recipe, state.ranks)) for batch in minibatches)
        losses = state.in_backward.step(passes, num_passes, effective_lr)
    else:
        losses = _backward(state, passes())
        if state.ranks is not None:
            sum_gradients(list(state.trained.values()), state.ranks)
            losses = [state.ranks.sum(torch.stack(losses).sum())]
        if _unscaled(state):
            if recipe.clip_norm:
                nn.utils.clip_grad_norm_(state.trained.values(), recipe.clip_norm)
            update(state.trained, state.momentum, recipe, effective_lr)
        elif state.loss_scale is not None and state.loss_scale.exhausted:
            losses.append(torch.full((), math.nan, device=state.device))
    state.losses += [(state.step, loss) for loss in losses]
    state.hooks.settle()


def failed_at(state: TrainingState) -> int | None:
    """The first step whose loss was not finite, or whose gradients overflow however it is scaled; None: all is well."""
    if not state.losses:
        return None
    finite = torch.stack([loss for _, loss in state.losses]).isfinite().tolist()
    steps = [step for (step, _), is_finite in zip(state.losses, finite, strict=True) if not is_finite]
    state.losses.clear()
    return min(steps, default=None)


def micro_batches(batch: Int[Tensor, "batch"], recipe: Recipe, ranks: Ranks | None) -> list[Int[Tensor, "micro_batch"]]:
    """What is computed at once of a batch, in order; among several processes, the part of each that is this one's."""
    parts = list(batch.chunk(recipe.accumulate))
    return parts if ranks is None else [ranks.share(part) for part in parts]


def _passes(
    state: TrainingState, workload: Workload, recipe: Recipe, minibatches: Sequence[Int[Tensor, "batch"]]
) -> Iterator[tuple[Tensor, float]]:
    """For each micro-batch the part that it has in the mean loss of its minibatch, and the weight of that in g.

    The sum over a micro-batch is divided by the size of the whole, so that a smaller last one counts as it should.
    """
    weights = svag_weights(recipe.ell) if recipe.ell > 1 else (1.0,)
    with statistics_frozen(state.model, recipe.batch_norm == "frozen"):
        for number, (batch, weight) in enumerate(zip(minibatches, weights, strict=True)):
            with statistics_kept(state.model, recipe.batch_norm == "once" and number > 0):
                for part in micro_batches(batch, recipe, state.ranks):
                    losses = scores(state.forward, state.device, workload.loss, workload.train, part, recipe.precision)
                    yield losses.sum() / len(batch), weight


def _backward(state: TrainingState, passes: Iterator[tuple[Tensor, float]]) -> list[Tensor]:
    """Leave what the rule calls g, times the loss scale, in ``.grad``; returns the losses."""
    for p in state.trained.values():
        p.grad = None
    losses = []
    for loss, weight in passes:
        scale = weight * (state.loss_scale.value if state.loss_scale else 1.0)
        (loss if scale == 1 else loss * scale).backward()  # type: ignore[no-untyped-call]
        losses.append(loss.detach())
    return losses


def _unscaled(state: TrainingState) -> bool:
    """Divide the gradients by the loss scale, where there is one; returns whether all of them are finite then."""
    if state.loss_scale is None:
        return True
    gradients = [p.grad for p in state.trained.values() if p.grad is not None]
    for g in gradients:
        g.div_(state.loss_scale.value)
    finite = bool(torch.stack([g.isfinite().all() for g in gradients]).all())
    state.loss_scale = state.loss_scale.after(finite)
    return finite
