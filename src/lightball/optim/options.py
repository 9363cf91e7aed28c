"""What `SGD`'s arguments may be; each refusal is one `InputError` in one line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.optim.optimizer import _device_dtype_check_for_fused

from lightball.errors import InputError
from lightball.optim.in_place import rule_of
from lightball.rules.kernel import Hyperparameters, validate

CONVENTIONS = ("torch", "canonical")
ROUNDINGS = ("nearest", "stochastic", "kahan")


def check_group(group: Mapping[str, Any]) -> None:
    """Refuse a parameter group whose numbers the rule cannot use, or whose ways of computing exclude each other."""
    _require_one_of("convention", group["convention"], CONVENTIONS)
    _require_one_of("rounding", group["rounding"], ROUNDINGS)
    lr = group["lr"]
    if isinstance(lr, Tensor) and lr.numel() != 1:
        raise InputError(f"lr is a tensor of shape {tuple(lr.shape)}; required is a number or a tensor of one element")
    if group["convention"] == "canonical":
        _check_canonical(group)
    rule = rule_of(group)
    validate(Hyperparameters(rule.lr, rule.momentum, rule.dampening, rule.weight_decay, rule.nesterov))
    _check_paths(group)
    for p in group["params"]:
        _check_parameter(p, group)


def check_momentum(group: Mapping[str, Any]) -> None:
    """Refuse a β, of a schedule say, that is outside [0, 1)."""
    momentum = group["momentum"]
    if not 0 <= momentum < 1:
        raise InputError(
            f"momentum is {momentum:g} at step {group['momentum_step']} of its schedule; required is 0 ≤ momentum < 1"
        )


def _check_canonical(group: Mapping[str, Any]) -> None:
    if group["nesterov"]:
        raise InputError(
            "nesterov=True with convention='canonical', which has no Nesterov form; required is convention='torch'"
        )
    if group["dampening"] not in (0, group["momentum"]):
        raise InputError(
            f"dampening is {group['dampening']:g} with convention='canonical', where it is the momentum; leave it "
            "out, or use convention='torch'"
        )


def _check_paths(group: Mapping[str, Any]) -> None:
    if group["foreach"] and group["fused"]:
        raise InputError("foreach=True and fused=True exclude each other; choose one, or leave both at None")
    many = "fused" if group["fused"] else "foreach" if group["foreach"] else None
    if many and group["differentiable"]:
        raise InputError(f"{many}=True has no gradient of its own; with differentiable=True leave it at None")
    if many and group["rounding"] != "nearest":
        raise InputError(
            f"{many}=True with rounding='{group['rounding']}', which moves parameters one by one; leave {many} at "
            "None, or use rounding='nearest'"
        )
    if group["differentiable"] and group["rounding"] != "nearest":
        raise InputError(
            f"differentiable=True with rounding='{group['rounding']}', which has no gradient; required is 'nearest'"
        )


def _check_parameter(p: Tensor, group: Mapping[str, Any]) -> None:
    if group["rounding"] != "nearest" and p.is_complex():
        raise InputError(
            f"a parameter is {p.dtype} with rounding='{group['rounding']}', which is for real weights; use "
            "rounding='nearest' in the group of the complex ones"
        )
    if not group["fused"]:
        return
    try:
        _device_dtype_check_for_fused(p)
    except RuntimeError:
        raise InputError(
            f"fused=True with a parameter of {p.dtype} on {p.device.type}; torch's fused kernel takes real floating "
            "point on a CPU or an accelerator that has it: leave fused at None"
        ) from None


def check_in_backward(group: Mapping[str, Any]) -> None:
    """Refuse, in a group that is updated during backward, what needs all gradients or their graph at once."""
    for name in ("differentiable", "foreach"):
        if group[name]:
            raise InputError(
                f"{name}=True with in_backward=True, where each parameter moves and loses its gradient on its own; "
                f"required is {name}=False, or in_backward=False"
            )


def check_seed(seed: int) -> None:
    """Refuse a seed that torch's generators do not take."""
    if not (isinstance(seed, int) and 0 <= seed < 1 << 63):
        raise InputError(f"seed is {seed}; required is a whole number from 0 to 2^63 − 1")


def _require_one_of(name: str, value: object, valid: tuple[str, ...]) -> None:
    if value not in valid:
        raise InputError(f"unknown {name} '{value}'; valid are {', '.join(valid)}")
