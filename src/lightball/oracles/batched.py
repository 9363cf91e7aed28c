"""One module with many sets of parameters: outputs for a replica axis, and which modules cannot have one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from lightball.errors import InputError, reason_of
from lightball.oracles.protocol import Tensors

if TYPE_CHECKING:
    from jaxtyping import Float, Shaped

PerExampleLoss = Callable[[Tensor, Tensor], Tensor]
"""(outputs, targets), examples first → one number for each example."""

_DROPOUT = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)


def batched_outputs(
    model: nn.Module, x: Tensors, inputs: Tensor, shared: bool = False
) -> Shaped[Tensor, "replica example ..."]:
    """Outputs of ``model`` with the parameters of each replica on that replica's inputs.

    ``x`` maps parameter names to tensors with a leading replica axis; what it does not name (frozen parameters,
    buffers) is taken from ``model`` itself. ``inputs`` are ``Shaped[Tensor, "replica example ..."]``, or without
    the replica axis if ``shared``. A single replica is called directly: the batched form of some layers,
    convolutions above all, rearranges memory for nothing there.
    """
    if next(iter(x.values())).shape[0] == 1:
        alone = inputs if shared else inputs[0]
        return functional_call(model, {name: p[0] for name, p in x.items()}, (alone,))[None]  # type: ignore[no-any-return]
    axes = (0, None) if shared else (0, 0)
    return vmap(lambda p, i: functional_call(model, p, (i,)), in_dims=axes)(x, inputs)  # type: ignore[no-any-return]


def batched_loss(
    loss_fn: PerExampleLoss,
    outputs: Shaped[Tensor, "replica example ..."],
    targets: Shaped[Tensor, "replica example ..."],
) -> Float[Tensor, "replica"]:
    """Mean loss of each replica: the replica axis is folded into the examples, since the loss has no parameters."""
    per_example = loss_fn(outputs.flatten(0, 1), targets.flatten(0, 1))
    return per_example.reshape(targets.shape[:2]).mean(dim=1)


def check_vectorisable(model: nn.Module, inputs: Shaped[Tensor, "example ..."]) -> None:
    """Refuse a module whose replicas would not be independent copies of it.

    Raises:
        InputError: BatchNorm (the replicas would share its running statistics, and evaluations would depend on how
            examples are grouped),
            active dropout (no generator for each replica), other buffers that change in the forward pass, or anything
            that ``torch.func.vmap`` cannot batch, such as control flow that depends on values. The message names the
            module.
    """
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and (module.training or module.running_mean is None):
            raise InputError(
                f"module '{name}' ({type(module).__name__}) normalises by the batch and may keep running statistics, "
                "which many models trained and evaluated at once cannot share: use GroupNorm or LayerNorm"
            )
        if isinstance(module, _DROPOUT) and module.training and module.p > 0:
            raise InputError(
                f"module '{name}' ({type(module).__name__}, p={module.p}) draws from one generator for all models "
                "trained at once: set p=0, or use weight decay instead"
            )
    trainable = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}
    pair = {name: p.expand(2, *p.shape).requires_grad_() for name, p in trainable.items()}
    with _entered(model) as path, _buffers_kept(model), torch.enable_grad():
        try:
            outputs = batched_outputs(model, pair, inputs.expand(2, *inputs.shape))
            if not isinstance(outputs, Tensor):
                raise TypeError(f"its output is a {type(outputs).__name__}, but must be one tensor")
            torch.autograd.grad(outputs.sum(), list(pair.values()), materialize_grads=True)
        except Exception as error:  # the user's own code runs here: anything can be raised
            name = path[-1] if path else ""
            raise InputError(
                f"module '{name or 'model'}' ({type(model.get_submodule(name)).__name__}) cannot be vectorised over "
                f"models: {reason_of(error)} "
                "(avoid control flow on tensor values, .item() and in-place buffers in forward)"
            ) from error


@contextmanager
def _entered(model: nn.Module) -> Iterator[list[str]]:
    """Names of the modules whose forward has begun and not ended: after an error, the last is where it happened."""
    path: list[str] = []
    handles = []
    for name, module in model.named_modules():
        handles.append(module.register_forward_pre_hook(lambda *_, name=name: path.append(name)))
        handles.append(module.register_forward_hook(lambda *_: path.__delitem__(-1)))
    try:
        yield path
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _buffers_kept(model: nn.Module) -> Iterator[None]:
    """Buffers are put back as they were, and one that had changed is refused unless there is an error already."""
    before = [
        (path, module, name, buffer, buffer.clone())
        for path, module in model.named_modules()
        for name, buffer in module._buffers.items()
        if buffer is not None
    ]
    changed = []
    try:
        yield
    finally:
        for path, module, name, buffer, value in before:
            if module._buffers[name] is not buffer or not torch.equal(buffer, value):
                module._buffers[name] = buffer.copy_(value)
                changed.append((path, module, name))
    for path, module, name in changed:
        raise InputError(
            f"module '{path or 'model'}' ({type(module).__name__}) changes its buffer '{name}' in the forward pass, "
            "which many models trained at once cannot share: take it out of the forward pass"
        )


def stack_parameters(models: list[nn.Module], device: torch.device) -> Tensors:
    """Trainable parameters of several models of one architecture, stacked along a new replica axis."""
    names = [name for name, p in models[0].named_parameters() if p.requires_grad]
    tables = [dict(model.named_parameters()) for model in models]
    return {name: torch.stack([t[name].detach() for t in tables]).to(device) for name in names}
