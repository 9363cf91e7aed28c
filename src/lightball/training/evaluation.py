"""What a model scores on each of some examples, and the mean over all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from lightball.errors import InputError
from lightball.oracles import PerExampleLoss
from lightball.training.ranks import Ranks
from lightball.training.recipe import Precision
from lightball.training.surroundings import generators_kept
from lightball.workloads import Data

if TYPE_CHECKING:
    from jaxtyping import Float, Int


def scores(
    forward: Callable[[Tensor], Tensor],
    device: torch.device,
    fn: PerExampleLoss,
    data: Data,
    examples: Int[Tensor, "example"],
    precision: Precision,
) -> Float[Tensor, "example"]:
    """``fn(outputs, targets)`` for some examples, at least in float32; the data need not be on the device.

    Raises:
        InputError: ``fn`` does not give one number for each example.
    """
    inputs, targets = data.inputs[examples].to(device), data.targets[examples].to(device)
    with torch.autocast(device.type, getattr(torch, precision), enabled=precision != "float32"):
        values = fn(forward(inputs), targets)
    torch.clear_autocast_cache()  # of casts of weights that the next step moves; nested autocasts keep it
    if values.shape != (len(examples),):
        raise InputError(
            f"the loss or the metric gives shape {tuple(values.shape)} for {len(examples)} examples, but must give one "
            f"number for each, shape ({len(examples)},): pass reduction='none'"
        )
    return values.to(torch.promote_types(values.dtype, torch.float32))


def mean_score(
    model: nn.Module,
    fn: PerExampleLoss,
    data: Data,
    width: int,
    precision: Precision,
    ranks: Ranks | None = None,
) -> float:
    """The mean of ``fn`` over all examples in eval mode, summed in float64; ``width`` examples are computed at once.

    Nothing is changed by it: no buffer, no mode, no generator. Cost: a forward pass over the data, of which each of
    several processes does its part.
    """
    device = next(model.parameters()).device
    total = torch.zeros((), dtype=torch.float64, device=device)
    with _unchanged(model), torch.no_grad():
        model.eval()
        examples = torch.arange(len(data), device=data.inputs.device)
        mine = examples if ranks is None else ranks.share(examples)
        for part in torch.split(mine, width) if len(mine) else ():
            total += scores(model, device, fn, data, part, precision).sum(dtype=torch.float64)
        if ranks is not None:
            ranks.sum(total)
    return total.item() / len(data)


@contextmanager
def _unchanged(model: nn.Module) -> Iterator[None]:
    """Modes, buffers and generators come out as they went in."""
    modes = [(module, module.training) for module in model.modules()]
    buffers = [
        (module, name, buffer, None if buffer is None else buffer.clone())
        for module in model.modules()
        for name, buffer in module._buffers.items()
    ]
    try:
        with generators_kept(next(model.parameters()).device):
            yield
    finally:
        for module, mode in modes:
            module.training = mode
        for module, name, buffer, value in buffers:
            module._buffers[name] = buffer if buffer is None or value is None else buffer.copy_(value)
