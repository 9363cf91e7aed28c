"""Updates made during backward: each parameter as soon as its gradient is complete, which is then freed.

One gradient lives at a time instead of all of them; the weights are those of the same optimizer without this, bit
for bit where that goes through them one by one too (foreach=False, torch's default on the CPU) or is fused. `step` ends
the step and catches what no hook saw, so a usual loop stays as it is. Three things differ from it:

- The lr of a step is the one at its backward pass.
- Whoever looks at `.grad` afterwards finds None. `torch.nn.utils.clip_grad_norm_`, also when called by Lightning or
  Accelerate, finds nothing to clip and says 0. Nothing here can notice that: clip by max_norm.
- backward moves the weights, and nothing takes that back. A pass that fails, out of memory say, leaves those moved
  whose gradients had come; a step that is left out because the loss is not finite has been made; and a loss moves
  every weight that it has a gradient for, such as a discriminator's in the generator's turn: freeze it there.
  `zero_grad` then ends the step, with a warning, and the loop goes on.
"""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from lightball.optim import in_backward_limits as limits
from lightball.optim.clipping import clip_coefficient, clipped, global_norm, is_alone, norm_of
from lightball.optim.rehearsal import undone
from lightball.optim.update import update_one

Closure = Callable[[], Any]
Group = dict[str, Any]

# In the first group's values, so that a saved run goes on with the norm that its next step clips by.
PREVIOUS_NORM = "previous_norm"


class InBackward:
    """The hooks of one optimizer, and what they know of the step at hand.

    max_norm None clips nothing. Else clipping is one of:

    - "parameter": each gradient by its own norm;
    - "previous": by the larger of the previous step's global norm and the gradient's own. The first step has no
      previous one, so it clips by the own norm; no gradient is ever longer than max_norm;
    - "exact": by the global norm, as `torch.nn.utils.clip_grad_norm_`. `step(closure)` runs the closure twice, for
      the norm and for the update, with the same random numbers of torch and the running statistics put back in
      between. Twice the time, and the closure must compute the same loss both times.

    Holds no reference to the optimizer, and its hooks keep neither alive. A copy, here or in another process, has the
    settings but no hooks until its first `step`, which then makes the update itself.
    """

    def __init__(self, max_norm: float | None = None, clipping: str = "parameter") -> None:
        limits.require_one_process()
        self._scaler_references = limits.require_no_grad_scaler()
        self._max_norm = max_norm
        self._clipping = clipping
        self._handles: dict[int, RemovableHandle] = {}  # by id of the parameter, as all dicts here
        self._accumulating = False
        self._underway = False  # a backward pass that updates has begun and not come to its end
        self._norms: dict[int, Tensor | None] = {}  # of the gradients that came in this pass, before clipping
        self._rehearsing = False
        self._rehearsed: dict[int, Tensor | None] | None = None  # the norms of the first of two passes
        self._total: Tensor | None = None  # their global norm
        weakref.finalize(self, _remove, self._handles).atexit = False

    def __reduce__(self) -> tuple[type[InBackward], tuple[float | None, str]]:
        return InBackward, (self._max_norm, self._clipping)

    def attach(self, optimizer: Optimizer, group: Group) -> None:
        """Hook those parameters of the group that need gradients and have no hook yet. Raises `InputError`."""
        index = next(i for i, known in enumerate(optimizer.param_groups) if known is group)
        for parameter in group["params"]:
            limits.require_dtype(parameter)  # of all before the first has a hook
        for parameter in group["params"]:
            if parameter.requires_grad and id(parameter) not in self._handles:
                hook = _hook(weakref.ref(self), weakref.ref(optimizer), index)
                self._handles[id(parameter)] = parameter.register_post_accumulate_grad_hook(hook)

    @contextmanager
    def accumulating(self) -> Iterator[None]:
        """Inside, backward passes only add up; the next one outside, or `step`, updates by the sum."""
        before, self._accumulating = self._accumulating, True
        try:
            yield
        finally:
            self._accumulating = before

    def step(self, optimizer: Optimizer, closure: Closure | None = None) -> Any:
        """End the step and return the closure's loss, if there is a closure: it has the backward pass.

        Updates by the gradients that no hook took: of parameters unfrozen since the last step, of those that the
        last backward pass after `accumulating` did not reach, and those put into `.grad` by hand.
        """
        try:
            if closure is not None and self._in_two_passes:
                self._rehearse(optimizer, closure)
            loss = None
            if closure is not None:
                with torch.enable_grad():
                    loss = closure()
            self._finish(optimizer)
            return loss
        finally:
            self._norms, self._underway = {}, False
            self._rehearsed = self._total = None

    def forget(self) -> None:
        """End a step that `step` did not: its backward pass failed, or the loop leaves it out. Warns: it was made."""
        if self._norms:
            warnings.warn(
                "zero_grad() after a backward pass without step(): with in_backward=True it has moved "
                f"{len(self._norms)} parameters, which stay so; look at the loss before backward(), and freeze by "
                "requires_grad_(False) what it is not to train",
                stacklevel=3,
            )
        self._norms, self._underway = {}, False

    @property
    def goes_by_previous(self) -> bool:
        """Whether gradients are clipped by the norm of the step before, which is then kept in the first group."""
        return self._clipping == "previous" and self._max_norm is not None

    @property
    def _in_two_passes(self) -> bool:
        return self._clipping == "exact" and self._max_norm is not None

    def arrive(self, optimizer: Optimizer, parameter: Tensor, group: Group) -> None:
        """Called by the hook, inside backward, when a parameter's gradient is complete."""
        limits.require_gradient(parameter)
        if self._accumulating:
            _own(parameter)
            return
        limits.require_first(parameter, again=id(parameter) in self._norms)
        if not self._norms:
            limits.require_one_process()
            self._scaler_references = limits.require_no_grad_scaler(self._scaler_references)
        if not self._underway:
            self._underway = True
            torch.autograd.Variable._execution_engine.queue_callback(self._end_pass)
        if self._in_two_passes and not self._rehearsing:
            limits.require_same_closure(parameter, self._rehearsed, first=not self._norms)
        self._take(optimizer, parameter, group)

    def _end_pass(self) -> None:
        """Called by autograd at the end of a backward pass, but for one that fails."""
        self._underway = False

    def refuse_scaler(self) -> None:
        """Raise the `InputError` that a GradScaler deserves; for the attribute that its `step` reads first."""
        raise limits.scaler_refused()

    def _take(self, optimizer: Optimizer, parameter: Tensor, group: Group) -> None:
        """Free the gradient, and update by it unless only its norm is wanted."""
        gradient = parameter.grad
        assert gradient is not None
        parameter.grad = None
        with torch.no_grad():
            norm = None if self._max_norm is None else norm_of(gradient)
            self._norms[id(parameter)] = norm
            if self._rehearsing:
                return
            if norm is not None and self._max_norm is not None:
                gradient = clipped(gradient, clip_coefficient(self._decisive(optimizer, norm), self._max_norm))
            state = optimizer.state.get(parameter, {})
            update_one(parameter, gradient, state, group)
            if state:  # as in torch, no entry where nothing is remembered
                optimizer.state[parameter] = state

    def _decisive(self, optimizer: Optimizer, norm: Tensor) -> Tensor:
        """The norm by which to clip a gradient that has this norm."""
        if self._total is not None:
            return self._total.to(norm)
        previous = optimizer.param_groups[0].get(PREVIOUS_NORM)
        if self._clipping == "parameter" or previous is None:
            return norm
        return torch.maximum(norm, previous.to(norm))

    def _rehearse(self, optimizer: Optimizer, closure: Closure) -> None:
        """The first of two passes: the norm of every gradient, and nothing changed."""
        limits.require_no_gradients(optimizer)
        self._rehearsing = True
        try:
            with undone(optimizer), torch.enable_grad():
                closure()
            self._take_the_rest(optimizer)
        finally:
            self._rehearsing = False
        self._rehearsed, self._norms = self._norms, {}
        self._total = _total(optimizer, self._rehearsed)

    def _finish(self, optimizer: Optimizer) -> None:
        if self._in_two_passes and self._total is None:  # no closure: what is left are all gradients
            self._total = global_norm(norm_of(p.grad) for p, _ in _with_gradients(optimizer) if p.grad is not None)
        self._take_the_rest(optimizer)
        for group in optimizer.param_groups:
            self.attach(optimizer, group)
        if self.goes_by_previous and self._norms and not self._underway:  # half of a pass has half of the norm
            optimizer.param_groups[0][PREVIOUS_NORM] = _total(optimizer, self._norms)

    def _take_the_rest(self, optimizer: Optimizer) -> None:
        for parameter, group in _with_gradients(optimizer):
            limits.require_gone(parameter, taken=id(parameter) in self._norms)
            self._take(optimizer, parameter, group)


def _with_gradients(optimizer: Optimizer) -> list[tuple[Tensor, Group]]:
    return [(p, group) for group in optimizer.param_groups for p in group["params"] if p.grad is not None]


def _total(optimizer: Optimizer, norms: dict[int, Tensor | None]) -> Tensor:
    """The global norm, added up in the order of the parameters: the order of backward would round otherwise."""
    ordered = (norms.get(id(p)) for group in optimizer.param_groups for p in group["params"])
    return global_norm(norm for norm in ordered if norm is not None)


def _own(parameter: Tensor) -> None:
    """Give a gradient memory of its own: autograd adds the next one in place, also to whoever shares the memory."""
    if parameter.grad is not None and not parameter.grad.is_sparse and not is_alone(parameter.grad):
        parameter.grad = parameter.grad.clone()


def _hook(owner: weakref.ref[InBackward], optimizer: weakref.ref[Optimizer], index: int) -> Callable[[Tensor], None]:
    """A hook that keeps nothing alive; by index, since loading a state dict makes new groups."""

    def arrive(parameter: Tensor) -> None:
        in_backward, target = owner(), optimizer()
        if in_backward is not None and target is not None:
            in_backward.arrive(target, parameter, target.param_groups[index])

    return arrive


def _remove(handles: dict[int, RemovableHandle]) -> None:
    for handle in handles.values():
        handle.remove()
    handles.clear()
