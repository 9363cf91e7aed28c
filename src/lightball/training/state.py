"""Everything that the next step of a run depends on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from lightball.dynamics import compiler_available
from lightball.errors import InputError
from lightball.oracles import build
from lightball.rules import State, kernel
from lightball.training.batch_norm import require_whole_batches
from lightball.training.history import Point
from lightball.training.hooks import Hooks, find_hooks
from lightball.training.in_backward import InBackward, update_in_backward
from lightball.training.loss_scale import LossScale
from lightball.training.ranks import Ranks
from lightball.training.recipe import Recipe
from lightball.training.surroundings import generator_states, set_generator_states
from lightball.workloads import Workload


@dataclass
class TrainingState:
    """A run between two steps; with torch's global generators it is complete.

    ``trained`` are the trainable parameters by name, ``momentum`` the kernel's state of each; ``loss_scale`` is None
    but in float16. ``forward`` is the model's forward pass in a training step. ``losses`` are those of the steps, with
    their numbers, that nobody has looked at yet: on a GPU, looking waits for the step.
    """

    model: nn.Module
    device: torch.device
    trained: dict[str, nn.Parameter]
    momentum: dict[str, State]
    loss_scale: LossScale | None
    forward: Callable[[Tensor], Tensor]
    hooks: Hooks
    ranks: Ranks | None = None
    in_backward: InBackward | None = None
    losses: list[tuple[int, Tensor]] = field(default_factory=list)
    step: int = 0
    points: list[Point] = field(default_factory=list)


def start(
    workload: Workload, recipe: Recipe, seed: int, device: torch.device, ranks: Ranks | None = None
) -> TrainingState:
    """The state before the first step: the weights of the seed, m₀ = 0.

    Raises:
        InputError: the model has no trainable parameter, or cannot be trained in the way that is asked for.
    """
    model = build(workload.model, seed).to(device).train()
    trained = dict(trainable(model))
    if not trained:
        raise InputError("the model has no trainable parameter: at least one must have requires_grad=True")
    if ranks is not None:
        require_whole_batches(model, recipe.batch_norm, ranks)
    hooks = find_hooks(model)
    if hooks.found and recipe.in_backward and recipe.clip_norm:
        raise InputError(
            f"clip_norm is {recipe.clip_norm} with in_backward, which takes two passes a step, but the model prepares "
            "for one: leave out clip_norm or in_backward"
        )
    # At momentum 0 the rule reads no buffer: SGD needs no memory for one.
    momentum = {name: kernel.init(p) if recipe.momentum else {} for name, p in trained.items()}
    return TrainingState(
        model,
        device,
        trained,
        momentum,
        LossScale() if recipe.precision == "float16" else None,
        forward=_compiled(model, device) if recipe.compile else model,
        hooks=hooks,
        ranks=ranks,
        in_backward=update_in_backward(model, trained, momentum, recipe) if recipe.in_backward else None,
    )


def _compiled(model: nn.Module, device: torch.device) -> Callable[[Tensor], Tensor]:
    """The compiled model beside the model itself, whose parameters keep their names.

    Raises:
        InputError: on the CPU, without a compiler.
    """
    if device.type == "cpu" and not compiler_available():
        raise InputError("compile is True, but there is no C++ compiler that runs (g++ or $CXX): install one")
    compiled: Callable[[Tensor], Tensor] = torch.compile(model)
    return compiled


def trainable(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """The parameters that are trained; one under several names comes once."""
    return ((name, p) for name, p in model.named_parameters() if p.requires_grad)


def tensors_of(state: TrainingState) -> dict[str, Tensor]:
    """The tensors of the state, with those of the generators, under names that begin with their kind."""
    return {
        **{f"parameter.{name}": p for name, p in state.model.named_parameters()},
        **{f"buffer.{name}": buffer for name, buffer in state.model.named_buffers()},
        **{f"{key}.{name}": value for name, s in state.momentum.items() for key, value in s.items()},
        **{f"generator.{name}": value for name, value in generator_states(state.device).items()},
    }


def values_of(state: TrainingState) -> dict[str, Any]:
    """What is not a tensor, as JSON."""
    return {
        "step": state.step,
        "points": [asdict(point) for point in state.points],
        "loss_scale": asdict(state.loss_scale) if state.loss_scale else None,
    }


def restore(state: TrainingState, tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
    """Bring a state, made by :func:`start`, and the generators to where the others were taken."""
    load_weights(state.model, tensors)
    for name, s in state.momentum.items():
        for key, value in s.items():
            value.copy_(tensors[f"{key}.{name}"])
    set_generator_states(_of_kind("generator", tensors), state.device)
    state.step = values["step"]
    state.points = [Point(**point) for point in values["points"]]
    state.loss_scale = LossScale(**values["loss_scale"]) if values["loss_scale"] else None


@torch.no_grad()
def load_weights(model: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Copy saved parameters and buffers into a model of the same making; what is shared in it stays shared."""
    for name, p in model.named_parameters():
        p.copy_(tensors[f"parameter.{name}"])
    present = dict(model.named_buffers())
    for name, value in _of_kind("buffer", tensors).items():
        if name in present and present[name].shape == value.shape:
            present[name].copy_(value)
        else:  # a buffer that the forward pass makes or resizes
            owner, _, last = name.rpartition(".")
            model.get_submodule(owner)._buffers[last] = value.to(next(model.parameters()).device)


def _of_kind(kind: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(f"{kind}."): value for name, value in tensors.items() if name.startswith(f"{kind}.")}
