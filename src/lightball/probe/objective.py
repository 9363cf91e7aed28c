"""The mean loss of a batch as a function of the trainable parameters in one vector."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from lightball.errors import InputError
from lightball.probe.batches import Batch, moved, num_examples
from lightball.probe.scope import computing, mode_of, substituted

if TYPE_CHECKING:
    from jaxtyping import Float

Loss = Callable[[nn.Module, Batch], Tensor]
"""(model, batch) → the mean loss of the batch, a scalar."""
Mode = Literal["as is", "eval", "train"]


@dataclass(frozen=True)
class Supervised:
    """The loss of batches ``(inputs, targets)``, through the model's outputs; made by :func:`supervised`."""

    loss_fn: Callable[[Any, Any], Tensor]

    def __call__(self, model: nn.Module, batch: Batch) -> Tensor:
        """The mean loss of the batch."""
        return self.of(self.outputs(model, batch), batch)

    def outputs(self, model: nn.Module, batch: Batch) -> Any:
        """What the model makes of the inputs."""
        return model(_two(batch)[0])

    def of(self, outputs: Any, batch: Batch) -> Tensor:
        """The mean loss of these outputs."""
        return self.loss_fn(outputs, _two(batch)[1]).mean()


def supervised(loss_fn: Callable[[Any, Any], Tensor]) -> Supervised:
    """A loss for batches ``(inputs, targets)`` from (outputs, targets) → a loss for each example, or their mean."""
    return Supervised(loss_fn)


class Objective:
    """The mean loss of batches as a function of one flat vector x of the trainable parameters.

    The model is never written to: passes run with other tensors in the places of its own. They are computed in
    ``dtype``, by default float32, or float64 where the model has it: weights, buffers and inputs of lower precision
    are cast. Attention and recurrent layers take the forms that can be differentiated twice.

    Args:
        model: any module; wrappers for parallel training and compilation are looked through.
        loss: (model, batch) → the batch's mean loss. It gets the module within the wrappers.
        mode: "eval" or "train" for the whole model, or as its modules are. Where BatchNorm trains, it uses statistics
            of the batch, and its running ones do not move.
        dtype: of the computation.
        seed: of dropout's masks, which are the same in every pass over a batch.

    Raises:
        InputError: no trainable parameters, or a kind of module whose parameters cannot be substituted.
    """

    def __init__(
        self, model: nn.Module, loss: Loss, *, mode: Mode = "as is", dtype: torch.dtype | None = None, seed: int = 0
    ) -> None:
        if mode not in ("as is", "eval", "train"):
            raise InputError(f"mode is {mode!r}, but must be 'as is', 'eval' or 'train'")
        self.model, self.loss, self.mode, self.seed = unwrapped(model), loss, mode, seed
        trainable = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
        _check(self.model, trainable)
        self.names: tuple[str, ...] = tuple(trainable)
        self.parameters: tuple[nn.Parameter, ...] = tuple(trainable.values())
        self.device = self.parameters[0].device
        self.dtype = dtype or _precision(self.parameters)
        self._sizes = [p.numel() for p in self.parameters]
        self.dim = sum(self._sizes)
        with torch.inference_mode(False):  # tensors that are made in it cannot be differentiated by
            self._point = [p.detach().to(self.dtype) for p in self.parameters]
            frozen = [p for p in self.model.parameters() if not p.requires_grad]
            self._frozen = {id(p): self._cast(p.detach()) for p in frozen}

    @property
    def effective_mode(self) -> str:
        """What a pass computes in: "eval", "train", or "mixed" where modules differ."""
        if self.mode != "as is":
            return self.mode
        modes = {module.training for module in self.model.modules()}
        return "mixed" if len(modes) > 1 else "train" if True in modes else "eval"

    def loss_and_gradient(self, batch: Batch, number: int = 0) -> tuple[float, Float[Tensor, "dim"]]:
        """The mean loss of the batch, and its gradient; about three forward passes.

        Args:
            batch: the examples.
            number: which of the dropout masks; passes with the same number share them.

        Raises:
            InputError: an empty batch, a loss that is no finite scalar or has no gradient, or a gradient that is not
                finite.
        """
        leaves = self.leaves()
        with self.substituted(leaves, number):
            value = self.value(batch)
            gradients = torch.autograd.grad(value, leaves, allow_unused=True, materialize_grads=True)
        gradient = self.flat(gradients)
        if not gradient.isfinite().all():
            name = next(n for n, g in zip(self.names, gradients, strict=True) if not g.isfinite().all())
            raise InputError(
                f"the gradient of parameter '{name}' is not finite on a batch of {num_examples(batch)} examples "
                "(find the operation with torch.autograd.detect_anomaly)"
            )
        return value.item(), gradient

    def shifted(self, displacement: Float[Tensor, "dim"]) -> Objective:
        """The same objective at x + displacement."""
        other = copy(self)
        with torch.inference_mode(False), torch.no_grad():
            other._point = [p + d for p, d in zip(self._point, self.parts(displacement), strict=True)]
        return other

    def leaves(self) -> list[Tensor]:
        """The parameters as fresh leaves of an autograd graph, in the order of ``names``."""
        with torch.inference_mode(False):
            return [p.detach().requires_grad_() for p in self._point]

    @contextmanager
    def substituted(self, tensors: Sequence[Tensor], number: int = 0) -> Iterator[None]:
        """Inside, the model computes with these tensors as parameters, in the objective's mode and precision.

        Its buffers are copies, and dropout draws the masks of ``number``. Backward passes need it too where forward
        passes are repeated in them, as in activation checkpointing.
        """
        own = {id(p): tensor for p, tensor in zip(self.parameters, tensors, strict=True)}
        with torch.inference_mode(False):
            buffers = {id(b): self._cast(b.detach().clone()) for b in self.model.buffers()}
        training = None if self.mode == "as is" else self.mode == "train"
        with (
            computing(self.seed, number),
            mode_of(self.model, training),
            substituted(self.model, {**self._frozen, **buffers, **own}),
        ):
            yield

    def value(self, batch: Batch) -> Tensor:
        """The mean loss of the batch with its graph, inside :meth:`substituted`.

        Raises:
            InputError: an empty batch, or a loss that is no finite scalar or has no gradient.
        """
        num_examples(batch)
        return checked(self.loss(self.model, self.moved(batch)), batch)

    def moved(self, batch: Batch) -> Batch:
        """The batch in the objective's precision and on its device."""
        return moved(batch, self.dtype, self.device)

    def flat(self, tensors: Mapping[str, Tensor | None] | Sequence[Tensor | None]) -> Float[Tensor, "dim"]:
        """One vector from a tensor for each parameter (None: zeros), by name or in the order of ``names``.

        Raises:
            InputError: missing or unknown names, or a shape that is not the parameter's.
        """
        given = self._ordered(tensors) if isinstance(tensors, Mapping) else list(tensors)
        if len(given) != len(self.names):
            raise InputError(f"{len(given)} tensors are given for {len(self.names)} trainable parameters")
        flattened = []
        for name, own, tensor in zip(self.names, self.parameters, given, strict=True):
            if tensor is not None and tensor.shape != own.shape:
                raise InputError(
                    f"the tensor for parameter '{name}' has shape {tuple(tensor.shape)}, but must have the "
                    f"parameter's, {tuple(own.shape)}"
                )
            dense = own.new_zeros(own.shape) if tensor is None else tensor.detach()
            flattened.append((dense.to_dense() if dense.is_sparse else dense).reshape(-1).to(self.device, self.dtype))
        return torch.cat(flattened)

    def parts(self, vectors: Float[Tensor, "... dim"]) -> list[Tensor]:
        """The vector cut into tensors of the parameters' shapes; leading axes stay."""
        pieces = torch.split(vectors, self._sizes, dim=-1)
        lead = vectors.shape[:-1]
        return [v.reshape((*lead, *p.shape)).to(p.device) for v, p in zip(pieces, self.parameters, strict=True)]

    def _ordered(self, tensors: Mapping[str, Tensor | None]) -> list[Tensor | None]:
        known = {name for name, _ in self.model.named_parameters(remove_duplicate=False)}
        given = {name if name in known else _plain(name): tensor for name, tensor in tensors.items()}
        missing, unknown = set(self.names) - set(given), set(given) - known
        if missing or unknown:
            what, names = ("has no tensor for", missing) if missing else ("names what the model has not,", unknown)
            raise InputError(
                f"the mapping {what} {', '.join(sorted(names)[:5])}{' …' if len(names) > 5 else ''}: "
                "it must have a tensor for every trainable parameter, by the names of model.named_parameters()"
            )
        return [given[name] for name in self.names]

    def _cast(self, tensor: Tensor) -> Tensor:
        return tensor.to(self.dtype) if tensor.is_floating_point() else tensor


def unwrapped(model: nn.Module) -> nn.Module:
    """The module within wrappers for parallel training and ``torch.compile``: their hooks must not see a probe."""
    wrappers = (nn.parallel.DistributedDataParallel, nn.DataParallel)
    inner: Any = model
    while isinstance(inner, wrappers) or hasattr(inner, "_orig_mod"):
        inner = inner.module if isinstance(inner, wrappers) else inner._orig_mod
    return inner  # type: ignore[no-any-return]


def checked(value: Any, batch: Batch) -> Tensor:
    """The loss, if it is a finite scalar that has a gradient.

    Raises:
        InputError: it is not.
    """
    if not isinstance(value, Tensor) or value.numel() != 1:
        shape = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
        raise InputError(f"loss(model, batch) returns {shape}, but must return a scalar: the mean loss of the batch")
    if not value.requires_grad:
        raise InputError(
            "the loss has no gradient: it does not depend on the trainable parameters, or .detach(), .item() or "
            "torch.no_grad() cut it off"
        )
    if not value.isfinite():
        raise InputError(
            f"the loss is {value.item()} on a batch of {num_examples(batch)} examples, but must be finite "
            "(look at the batch, or go back to weights before the run diverged)"
        )
    return value.reshape(())


def _two(batch: Batch) -> tuple[Any, Any]:
    if not isinstance(batch, tuple | list) or len(batch) != 2:
        raise InputError(
            f"a supervised loss got a batch of type {type(batch).__name__}, but needs (inputs, targets): "
            "give a loss(model, batch) of your own for other batches"
        )
    return batch[0], batch[1]


def _precision(parameters: Sequence[Tensor]) -> torch.dtype:
    return torch.float64 if any(p.dtype == torch.float64 for p in parameters) else torch.float32


def _plain(name: str) -> str:
    """A parameter's name without the prefixes of wrappers."""
    return name.removeprefix("module.").replace("_orig_mod.", "")


def _check(model: nn.Module, trainable: Mapping[str, nn.Parameter]) -> None:
    if not trainable:
        raise InputError(
            "the model has no parameter with requires_grad=True, but a probe needs at least one: unfreeze some"
        )
    for name, p in trainable.items():
        if isinstance(p, nn.parameter.UninitializedParameter):
            raise InputError(f"parameter '{name}' has no shape yet: run the model on a batch first")
        if not p.is_floating_point():
            raise InputError(f"parameter '{name}' is {p.dtype}, but must be real and floating")
        if hasattr(p, "placements"):
            raise InputError(
                f"parameter '{name}' is sharded over devices, but must be whole: probe the model on one device"
            )
    for name, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            raise InputError(
                f"module '{name or 'model'}' is scripted, so that its parameters cannot be substituted: "
                "probe the model before torch.jit"
            )
