"""Where an optimizer says one thing in its groups and does another, and what its copy could not take along."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from lightball.optim.auditing.rule import FoundRule
from lightball.optim.auditing.stand_in import StandIn

_AGREES = 1e-5  # relative
_ROOM = {"weight_decay": 1e-12}  # what rounding of positions leaves of it
_CYCLED = {"base_momentum", "max_momentum"}  # which OneCycleLR leaves in groups whose momentum it moves
_PASSED_THROUGH = "_wrapped_by_lr_sched"  # torch's schedulers count steps around the optimizer's own


def contradictions(group: dict[str, Any], rule: FoundRule, factor: float) -> tuple[str, ...]:
    """Values of the group that its steps do not have; the rate is ``factor`` times that of the rule."""
    found = {
        "lr": factor * rule.lr,
        "momentum": rule.momentum,
        "beta": rule.momentum,
        "dampening": rule.dampening,
        "nesterov": rule.nesterov,
        "weight_decay": rule.shrink / rule.lr if rule.shrink else rule.weight_decay,
    }
    if factor == 0:
        del found["lr"]
    if rule.momentum == 0:  # these mean nothing then
        del found["dampening"], found["nesterov"]
    notes = ["lr is 0 now; the rest was found with lr 1 on the copy"] if factor == 0 else []
    notes += [
        f"the group says {name} {_in_words(group[name])}, but its steps have {_in_words(value)}"
        for name, value in found.items()
        if isinstance(group.get(name), (bool, int, float, Tensor))
        and not _agree(group[name], value, _ROOM.get(name, 0.0))
    ]
    return tuple(notes)


def momentum_now(group: dict[str, Any]) -> str:
    """The note on a group whose momentum, or first beta, is moved by a schedule."""
    value = group["momentum"] if "momentum" in group else group["betas"][0]
    return f"momentum follows a schedule; {float(value):.6g} is its value now"


def copy_notes(optimizer: Optimizer, group: dict[str, Any], layout: StandIn) -> tuple[str, ...]:
    """What the experiments left out of this optimizer."""
    scheduled = group.get("momentum_schedule") is not None or group.keys() >= _CYCLED
    notes = [momentum_now(group)] if scheduled else []
    hooks = [h for name in ("pre", "post") for h in getattr(optimizer, f"_optimizer_step_{name}_hooks", {})]
    if hooks:
        notes.append(f"{len(hooks)} hook{'s' if len(hooks) > 1 else ''} on step were not called")
    own = vars(optimizer).get("step")
    if own is not None and not hasattr(own, _PASSED_THROUGH):
        notes.append("step was replaced on this object; that of its class was audited")
    if (calls := max(layout.calls, default=0)) > 1:
        notes.append(
            f"step calls its closure {calls} times; gradients were the same each time, so what it does with those at "
            "other points is not seen"
        )
    if layout.left_out:
        notes.append(f"could not be copied and was left out: {', '.join(layout.left_out)}")
    frozen = [p for p in group["params"] if not p.requires_grad]
    if frozen:
        notes.append(f"{len(frozen)} of its {len(group['params'])} parameters are frozen")
    return tuple(notes)


def _agree(said: Any, done: float, room: float) -> bool:
    value = float(said)
    return abs(value - done) <= max(_AGREES * max(abs(value), abs(done)), room)


def _in_words(value: Any) -> str:
    if isinstance(value, bool):
        return str(value)
    return f"{float(value):.5g}" if value else "none"
