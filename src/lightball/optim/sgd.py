"""`torch.optim.SGD` with a canonical convention, schedules of β, updates in backward and low-precision rounding."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Literal

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer, ParamsT, StateDict

from lightball.errors import InputError
from lightball.optim.clipping import clip_coefficient, clipped, global_norm, norm_of, require_clipping
from lightball.optim.in_backward import PREVIOUS_NORM, InBackward
from lightball.optim.options import check_group, check_in_backward, check_momentum, check_seed, check_sparse
from lightball.optim.rounding import is_rounded, next_seed
from lightball.optim.update import update_group


class SGD(Optimizer):
    """Stochastic gradient descent, optionally with momentum: a drop-in for `torch.optim.SGD`.

    The rule is that of `lightball.rules.kernel`; in float32 on the CPU the trajectory is bit-equal to torch's on
    each of its paths, and state dicts go both ways.

    Args beyond torch's:
        momentum: a number, or a callable from the step k = 0, 1, … to β, which can be sent to other processes if the
            optimizer is to be; its values are checked as they come. Schedulers that write group["momentum"] work too.
        convention: "torch", b ← μ b + (1 − dampening) g with the first step undampened, or "canonical",
            m ← β m + (1 − β) g from m = 0, where lr is the effective rate: dampening follows momentum.
        in_backward: each parameter is updated as soon as its gradient is complete, and the gradient is freed. So
            `torch.nn.utils.clip_grad_norm_` (and Lightning's and Accelerate's clipping, which call it) CLIPS NOTHING,
            and nobody notices: use max_norm. And backward itself moves the weights, for good: a pass that fails leaves
            part of them moved, and leaving out `step` leaves out nothing, see `lightball.optim.in_backward`.
        max_norm, clipping: the gradients are clipped to this norm inside the step, as by torch's
            `clip_grad_norm_`, in place: "parameter" each by its own norm, "global" all by their common norm. With
            in_backward: "parameter", "previous" or "exact", see `lightball.optim.in_backward`.
        rounding: of bfloat16 and float16 weights. "nearest" as torch does; "stochastic" and "kahan" compute the
            step in float32, then round by chance, without bias, or keep what is left over in a second tensor of
            the weights' dtype (state "compensation"). Other weights are not affected.
        seed: of the stochastic rounding; the stream of each parameter is saved in the state.

    `torch.compile(optimizer.step)` compiles once if lr is a tensor or constant; the first step, and all steps with
    clipping, a schedule of β, in_backward or stochastic rounding, run as without it. Raises `InputError` for values
    and combinations that cannot work.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        momentum: float | Callable[[int], float] = 0.0,
        dampening: float = 0.0,
        weight_decay: float | Tensor = 0.0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        differentiable: bool = False,
        fused: bool | None = None,
        convention: Literal["torch", "canonical"] = "torch",
        in_backward: bool = False,
        max_norm: float | None = None,
        clipping: Literal["parameter", "global", "previous", "exact"] = "parameter",
        rounding: Literal["nearest", "stochastic", "kahan"] = "nearest",
        seed: int = 0,
    ) -> None:
        require_clipping(max_norm, clipping, in_backward)
        check_seed(seed)
        self._max_norm, self._clipping = max_norm, clipping
        self._in_backward: InBackward | None = None
        if in_backward:
            self._in_backward = InBackward(max_norm, clipping)
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "dampening": dampening,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
            "maximize": maximize,
            "foreach": foreach,
            "differentiable": differentiable,
            "fused": fused,
            "convention": convention,
            "rounding": rounding,
            "seed": seed,
            "momentum_schedule": None,
            "momentum_step": 0,
        }
        super().__init__(params, defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group, whose missing values are the optimizer's. Raises `InputError` as the constructor does."""
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        try:
            self._settle(group)
            if self._in_backward is not None:
                self._in_backward.attach(self, group)
        except BaseException:  # also of a schedule of β
            self.param_groups.pop()
            raise
        self._give_seeds()

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Move every parameter that has a gradient; returns what the closure, which redoes the backward, returned.

        With in_backward the parameters have moved already, and this counts the step.
        """
        if torch.compiler.is_compiling() and self._cannot_be_traced():
            return torch.compiler.disable(self._step)(closure)  # type: ignore[no-untyped-call]
        return self._step(closure)

    def _step(self, closure: Callable[[], Any] | None) -> Any:
        with torch.set_grad_enabled(self.defaults["differentiable"]):
            if self._in_backward is not None:
                loss = self._in_backward.step(self, closure)
            else:
                with torch.enable_grad():
                    loss = None if closure is None else closure()
                self._update()
            for group in self.param_groups:
                _go_on_with_momentum(group)
        return loss

    def zero_grad(self, set_to_none: bool = True) -> None:
        """torch's; with in_backward it also ends a step whose backward pass failed or that had no `step`, and warns."""
        super().zero_grad(set_to_none)
        if self._in_backward is not None:
            self._in_backward.forget()

    def accumulating(self) -> AbstractContextManager[None]:
        """A context inside which backward only adds gradients up, for in_backward; the next one outside updates."""
        if self._in_backward is None:
            raise InputError(
                "accumulating() is for in_backward=True; without it, call backward() several times before step()"
            )
        return self._in_backward.accumulating()

    def state_dict(self) -> StateDict:
        """torch's, which `torch.optim.SGD` loads too, and does not mind the keys that it does not know.

        A schedule of β is not in it, but the step it has come to is. In the canonical convention, parameters that have
        had no gradient have the buffer of zeros from which they start: torch would start them undampened.
        """
        for group in self.param_groups:
            _keep_dampening(group)
        packed = super().state_dict()
        for group, saved in zip(self.param_groups, packed["param_groups"], strict=True):
            del saved["momentum_schedule"]
            if group["convention"] == "canonical" and (
                group["momentum"] != 0 or group["momentum_schedule"] is not None
            ):
                _start_from_zeros(packed["state"], dict(zip(saved["params"], group["params"], strict=True)))
        return packed

    @property
    def _step_supports_amp_scaling(self) -> bool:
        """Asked by GradScaler: whether `step` divides by the scale and skips overflows itself, as fused does."""
        if self._in_backward is not None:
            self._in_backward.refuse_scaler()
        return self._max_norm is None and all(group["fused"] for group in self.param_groups)

    def __getstate__(self) -> dict[str, Any]:
        own = {name: self.__dict__[name] for name in ("_max_norm", "_clipping", "_in_backward")}
        return {**super().__getstate__(), **own}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Of unpickling, which brings everything, and of `load_state_dict`, which brings groups and state alone."""
        present = self.__dict__.get("param_groups")
        if present is None:
            super().__setstate__(state)
            return
        for group, own in zip(state["param_groups"], present, strict=True):
            _keep_own_values(group, own, self.defaults)
            if self._in_backward is None or not self._in_backward.goes_by_previous:
                group.pop(PREVIOUS_NORM, None)
            self._check(group)
        super().__setstate__(state)
        self._give_seeds()

    def _settle(self, group: dict[str, Any]) -> None:
        """Check a new group, and take its schedule of β apart into the schedule and its present value."""
        if callable(group["momentum"]):
            group["momentum_schedule"] = group["momentum"]
            group["momentum"] = group["momentum_schedule"](group["momentum_step"])
            check_momentum(group)
        self._check(group)
        _keep_dampening(group)

    def _check(self, group: dict[str, Any]) -> None:
        check_group(group)
        if self._in_backward is not None:
            check_in_backward(group)

    def _give_seeds(self) -> None:
        """A stream of random numbers for every parameter that is rounded stochastically and has none yet."""
        position = 0
        for group in self.param_groups:
            for p in group["params"]:
                if group["rounding"] == "stochastic" and is_rounded(p, group):
                    self.state[p].setdefault("rounding_seed", next_seed(next_seed(group["seed"]) + position))
                position += 1

    def _update(self) -> None:
        grad_scale, found_inf = getattr(self, "grad_scale", None), getattr(self, "found_inf", None)
        if found_inf is not None and self._lacks_state() and found_inf.item():
            return  # buffers made by a step that is then skipped would stay uninitialised
        moving = [[p for p in group["params"] if p.grad is not None] for group in self.param_groups]
        for group, params in zip(self.param_groups, moving, strict=True):
            if any(p.grad.is_sparse for p in params):
                check_sparse(group)
        self._clip()
        for group, params in zip(self.param_groups, moving, strict=True):
            states = [self.state.get(p, {}) for p in params]
            update_group(params, [p.grad for p in params], states, group, grad_scale, found_inf)
            self.state.update((p, state) for p, state in zip(params, states, strict=True) if state)

    def _cannot_be_traced(self) -> bool:
        """Whether a graph of this step would not do for the next, or would be cut in many."""
        if self._max_norm is not None or self._in_backward is not None:
            return True
        for group in self.param_groups:
            draws = group["rounding"] == "stochastic" and any(is_rounded(p, group) for p in group["params"])
            if draws or group["momentum_schedule"] is not None:
                return True
        return self._lacks_state()

    def _lacks_state(self) -> bool:
        """Whether this step makes the buffer or the compensation of some parameter."""
        for group in self.param_groups:
            for p in group["params"]:
                state = self.state.get(p, {})
                lacks_buffer = group["momentum"] != 0 and state.get("momentum_buffer") is None
                lacks_rest = group["rounding"] == "kahan" and is_rounded(p, group) and "compensation" not in state
                if p.grad is not None and (lacks_buffer or lacks_rest):
                    return True
        return False

    def _clip(self) -> None:
        """Scale the gradients in place to the threshold, as torch's `clip_grad_norm_` does."""
        if self._max_norm is None:
            return
        params = [p for group in self.param_groups for p in group["params"] if p.grad is not None]
        norms = [norm_of(p.grad) for p in params]
        if self._clipping == "global":
            norms = [global_norm(norms)] * len(norms)
        for p, norm in zip(params, norms, strict=True):
            p.grad = clipped(p.grad, clip_coefficient(norm, self._max_norm))


def _go_on_with_momentum(group: dict[str, Any]) -> None:
    """After a step: the next value of a schedule of β, and the dampening that follows it."""
    if group["momentum_schedule"] is not None:
        group["momentum_step"] += 1
        group["momentum"] = group["momentum_schedule"](group["momentum_step"])
        check_momentum(group)
    _keep_dampening(group)


def _keep_dampening(group: dict[str, Any]) -> None:
    """In the canonical convention the group says the dampening that is applied, for whoever reads it, as torch."""
    if group["convention"] == "canonical" and group["dampening"] != group["momentum"]:
        group["dampening"] = group["momentum"]


def _start_from_zeros(states: dict[int, dict[str, Any]], params: dict[int, Tensor]) -> None:
    for index, p in params.items():
        if states.get(index, {}).get("momentum_buffer") is None:  # a new entry: the old one is the optimizer's own
            states[index] = {**states.get(index, {}), "momentum_buffer": torch.zeros_like(p)}


def _keep_own_values(group: dict[str, Any], own: dict[str, Any], defaults: dict[str, Any]) -> None:
    """Give a loaded group what its state dict lacks; a state dict of `torch.optim.SGD` is in torch's convention."""
    if "convention" not in group and own["convention"] != "torch":
        warnings.warn(
            f"the state dict is written in torch's convention, the optimizer was in '{own['convention']}': it now "
            "follows torch's, with the rate and the momentum of the state dict",
            stacklevel=4,
        )
    group.setdefault("convention", "torch")
    for key in defaults:
        group.setdefault(key, own[key])
    _keep_dampening(group)
