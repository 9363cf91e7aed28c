"""What `SGD`'s arguments may be; each refusal is one `InputError` in one line."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Real
from typing import Any, TypeGuard

from torch import Tensor
from torch.optim.optimizer import _device_dtype_check_for_fused

from lightball.errors import InputError
from lightball.optim.in_place import numbers_of
from lightball.rules.kernel import Hyperparameters, validate

CONVENTIONS = ("torch", "canonical")
ROUNDINGS = ("nearest", "stochastic", "kahan")


def check_group(group: Mapping[str, Any]) -> None:
    """Refuse a parameter group whose numbers the rule cannot use, or whose ways of computing exclude each other."""
    _require_one_of("convention", group["convention"], CONVENTIONS)
    _require_one_of("rounding", group["rounding"], ROUNDINGS)
    for name in ("lr", "momentum", "dampening", "weight_decay"):
        _require_number(name, group[name])
    lr = group["lr"]
    if isinstance(lr, Tensor) and lr.numel() != 1:
        raise InputError(f"lr is a tensor of shape {tuple(lr.shape)}; required is a number or a tensor of one element")
    if group["convention"] == "canonical":
        _check_canonical(group)
    numbers = numbers_of(group)
    validate(Hyperparameters(numbers.lr, numbers.momentum, numbers.dampening, numbers.weight_decay, numbers.nesterov))
    _check_paths(group)
    for p in group["params"]:
        _check_parameter(p, group)


def check_momentum(group: Mapping[str, Any]) -> None:
    """Refuse a β, of a schedule say, that is outside [0, 1)."""
    momentum = group["momentum"]
    if not (is_number(momentum) and 0 <= momentum < 1):
        shown = f"{momentum:g}" if is_number(momentum) else repr(momentum)
        raise InputError(
            f"momentum is {shown} at step {group['momentum_step']} of its schedule; required is 0 ≤ momentum < 1"
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


def check_sparse(group: Mapping[str, Any]) -> None:
    """Refuse a sparse gradient in a group whose step would make it dense."""
    refused = {"momentum": group["momentum"] != 0, "weight_decay": group["weight_decay"] != 0}
    refused |= {"rounding": group["rounding"] != "nearest", "fused": bool(group["fused"])}
    for name, is_refused in refused.items():
        if is_refused:
            raise InputError(
                f"a sparse gradient came with {name}={group[name]}; sparse gradients go with momentum=0, "
                "weight_decay=0, rounding='nearest' and without fused: give these parameters a group with that, or "
                "make their gradient dense (sparse=False in the embedding)"
            )


def check_seed(seed: int) -> None:
    """Refuse a seed that torch's generators do not take."""
    if not (isinstance(seed, int) and 0 <= seed < 1 << 63):
        raise InputError(f"seed is {seed}; required is a whole number from 0 to 2^63 − 1")


def is_number(value: object) -> TypeGuard[float]:
    """Whether the value is a real number, of Python or NumPy; text and tensors are none."""
    return isinstance(value, Real)


def _require_number(name: str, value: object) -> None:
    if not (is_number(value) or isinstance(value, Tensor)):
        raise InputError(
            f"{name} is {value!r}; required is a number: convert text by float(), or leave {name} out for its default"
        )


def _require_one_of(name: str, value: object, valid: tuple[str, ...]) -> None:
    if value not in valid:
        raise InputError(f"unknown {name} '{value}'; valid are {', '.join(valid)}")
