"""One training step: gradients of a minibatch, clipped, and the update rule."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from lightball.oracles import svag_weights
from lightball.rules import canonical, kernel
from lightball.training.batch_norm import statistics_frozen, statistics_kept
from lightball.training.evaluation import scores
from lightball.training.recipe import Recipe
from lightball.training.state import TrainingState, trainable
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

    In float16, a step whose gradients overflow is skipped: weights and momentum stay, and the loss scale halves.
    (Buffers keep what the forward pass, which did not overflow, wrote into them.)
    """
    if not _gradients(state, workload, recipe, minibatches):
        return False
    if (scale := state.loss_scale) is not None:
        finite = _unscale(state.model, scale.value)
        state.loss_scale = scale.after(finite)
        if not finite:
            return not state.loss_scale.exhausted
    if recipe.clip_norm:
        nn.utils.clip_grad_norm_(state.model.parameters(), recipe.clip_norm)
    _update(state, recipe, effective_lr / recipe.ell)
    return True


def _gradients(
    state: TrainingState, workload: Workload, recipe: Recipe, minibatches: Sequence[Int[Tensor, "batch"]]
) -> bool:
    """Leave what the rule calls g, times the loss scale, in ``.grad``; False if a loss is not finite."""
    model = state.model
    model.zero_grad(set_to_none=True)
    weights = svag_weights(recipe.ell) if recipe.ell > 1 else (1.0,)
    losses = []
    with statistics_frozen(model, recipe.batch_norm == "frozen"):
        for number, (batch, weight) in enumerate(zip(minibatches, weights, strict=True)):
            with statistics_kept(model, recipe.batch_norm == "once" and number > 0):
                losses.append(_backward(state, workload, recipe, batch, weight))
    return all(map(math.isfinite, losses))


def _backward(
    state: TrainingState, workload: Workload, recipe: Recipe, batch: Int[Tensor, "batch"], weight: float
) -> float:
    """Add the gradient of the mean loss over the batch, times weight and loss scale, to ``.grad``; returns that loss.

    The sum over each micro-batch is divided by the size of the whole, so that a smaller last one counts as it should.
    """
    scale = weight * (state.loss_scale.value if state.loss_scale else 1.0)
    loss = torch.zeros((), dtype=torch.float64, device=state.device)
    for part in batch.chunk(recipe.accumulate):
        share = scores(state.model, workload.loss, workload.train, part, recipe.precision).sum() / len(batch)
        (share * scale).backward()  # type: ignore[no-untyped-call]
        loss += share.detach()
    return loss.item()


def _unscale(model: nn.Module, loss_scale: float) -> bool:
    """Divide the gradients by the loss scale; returns whether all of them are finite."""
    gradients = [p.grad for _, p in trainable(model) if p.grad is not None]
    for g in gradients:
        g.div_(loss_scale)
    return bool(torch.stack([g.isfinite().all() for g in gradients]).all())


@torch.no_grad()
def _update(state: TrainingState, recipe: Recipe, effective_lr: float) -> None:
    """The update rule for every trainable parameter; one that the loss does not depend on has gradient 0."""
    hyper = canonical(effective_lr, recipe.momentum, recipe.weight_decay)
    for name, p in trainable(state.model):
        g = torch.zeros_like(p) if p.grad is None else p.grad
        moved, state.momentum[name] = kernel.step(p, g, state.momentum[name], hyper)
        p.copy_(moved)
