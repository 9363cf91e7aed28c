"""The audit: experiments on a copy, the rule that they show, and what the optimizer says that they do not show."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from lightball.errors import InputError
from lightball.optim.auditing import live, nonlinear
from lightball.optim.auditing.audited import Audited, Family, rounded
from lightball.optim.auditing.clips import threshold
from lightball.optim.auditing.contradictions import contradictions, copy_notes
from lightball.optim.auditing.responses import Responses, excitation, measure
from lightball.optim.auditing.rule import EXACT, SINGLE, Rule, find_rule
from lightball.optim.auditing.stand_in import maker, undisturbed

_LAUNCHERS = {"accelerate", "lightning", "pytorch_lightning"}  # their optimizers wrap the one that steps
UNSEEN = (
    "what happens to gradients outside step is not seen: clipping in the loop, a GradScaler, accumulation, or a buffer "
    "that the loop clears"
)


def audit(optimizer: object) -> tuple[Audited, ...]:
    """What an optimizer really does, one :class:`Audited` per parameter group, by experiments on a small copy.

    Copies with an empty state are driven with impulses, constant and random gradients of many sizes, in float64; a
    rule counts as found when `rules.kernel.step`, driven by the same gradients, goes the same way to 1e-9. Nothing
    of the optimizer, its parameters or the random generators is changed, and none of its hooks is called. Cost: about
    150 steps of a few small tensors per group, whatever the size of the model.

    Raises:
        InputError: it is no optimizer, or its step fails on the copy.
    """
    inner, wrapper = _unwrapped(optimizer)
    with undisturbed():
        bench = Bench(inner)
        found = tuple(bench.audited(k) for k in range(len(inner.param_groups)))
    return tuple(replace(one, notes=wrapper + one.notes) for one in found)


def _unwrapped(optimizer: Any) -> tuple[Optimizer, tuple[str, ...]]:
    inner = getattr(optimizer, "optimizer", None)
    homes = {base.__module__.partition(".")[0] for base in type(optimizer).__mro__}
    if isinstance(inner, Optimizer) and (homes & _LAUNCHERS or not isinstance(optimizer, Optimizer)):
        name = type(optimizer).__name__
        return inner, (f"this is the optimizer inside {name}, without what {name} does around its step",)
    if not isinstance(optimizer, Optimizer):
        raise InputError(f"audit got a {type(optimizer).__name__}; required is a torch.optim.Optimizer: give that")
    return optimizer, ()


class Bench:
    """The experiments with one optimizer; each is made once, for all groups."""

    def __init__(self, optimizer: Optimizer) -> None:
        self.real = optimizer
        self.make = maker(optimizer)
        self.layout = self.make()
        self.ladder = nonlinear.runs_from_zero(self.make)
        self.responses = cache(lambda scale: measure(self.make, scale))
        self.stepped = self.make()
        _, start, gradients = excitation(self.stepped.size)
        self.stepped.run(gradients[:2], start)

    def audited(self, index: int) -> Audited:
        """What the group does."""
        part = self.layout.slices[index]
        found = Audited(index, _name(self.real), "not linear")
        if part.start == part.stop:
            return replace(found, family="unknown", notes=("the group has no parameter with elements",))
        scale = nonlinear.linear_scale({size: run[:, part] for size, run in self.ladder.items()})
        rule, single = self._rule(index, scale)
        seen = self.responses(scale or 1.0).of(part)
        if scale is not None and rule is not None:
            clips = threshold(self.ladder, self.layout, index, seen) if scale < 1 else None
            found = self._linear(found, rule, clips, single)
        else:
            found = self._other(found, part, scale, seen)
        return self._with_state(found, index)

    def _rule(self, index: int, scale: float | None) -> tuple[Rule | None, bool]:
        """The linear rule, if there is one, and whether it only holds to single precision."""
        if scale is None:
            return None, False
        seen = self.responses(scale).of(self.layout.slices[index])
        lr = _number(self.layout.optimizer.param_groups[index].get("lr"))
        for tolerance in (EXACT, SINGLE):
            rule = find_rule(seen, lr, tolerance)
            if rule is not None:
                return rule, tolerance == SINGLE
        return None, False

    def _linear(self, found: Audited, rule: Rule, clips: tuple[float, str] | None, single: bool) -> Audited:
        factor = self._factor(found.group)
        notes = contradictions(self.real.param_groups[found.group], rule, factor)
        if single:
            notes += ("the numbers hold to 2e-6 only: its steps are computed in single precision, or change slowly",)
        if clips:
            notes += (f"gradients are limited inside step, {clips[1]} at {clips[0]:.5g}; the rest holds below",)
        family: Family = "nesterov" if rule.nesterov else "sgdm" if rule.momentum else "sgd"
        decay = rule.shrink / rule.lr if rule.shrink else rule.weight_decay
        strength = rule.shrink or rule.effective_lr * rule.weight_decay
        return replace(
            found,
            family=family,
            nonlinearity="clipping" if clips else None,
            lr=rounded(factor * rule.lr),
            effective_lr=rounded(rule.effective_lr) if factor else 0.0,
            momentum=rounded(rule.momentum),
            dampening=rounded(rule.dampening),
            nesterov=rule.nesterov,
            momentum_active=rule.momentum != 0,
            memory_length=rounded(1 / (1 - rule.momentum)) if rule.momentum < 1 else math.inf,
            first_step=rounded(rule.first_step),
            weight_decay=rounded(decay),
            decoupled=rule.shrink != 0,
            decay_per_step=rounded(strength) if factor else 0.0,
            maximize=rule.sign < 0,
            clips_at=rounded(clips[0]) if clips else None,
            notes=notes,
        )

    def _other(self, found: Audited, part: slice, scale: float | None, seen: Responses) -> Audited:
        found = replace(found, momentum_active=nonlinear.has_memory(seen.first))
        decay = nonlinear.decoupled_decay(seen)
        if not seen.free.sub(seen.start).any():
            return replace(found, family="linear, other", notes=("its steps do not move its parameters",))
        if scale is not None and nonlinear.is_additive(self.make, part, scale):
            varies = nonlinear.changes_in_time(seen.first, seen.late)
            note = "the same gradient has another effect at a later step" if varies else "not a rule of SGD"
            return replace(found, family="linear, other", notes=(note,))
        lr = _number(self.layout.optimizer.param_groups[found.group].get("lr"))
        factor = self._factor(found.group)
        return replace(
            found,
            nonlinearity=nonlinear.kind_of(self.make, part),
            decoupled=None if decay is None else decay > 0,
            weight_decay=rounded(decay / lr) if decay and lr else decay if decay == 0 else None,
            decay_per_step=None if decay is None else rounded(decay) if factor else 0.0,
        )

    def _factor(self, index: int) -> float:
        """0 where the learning rate is 0 now and was 1 in the experiments, else 1."""
        real, probed = (_number(o.param_groups[index].get("lr")) for o in (self.real, self.layout.optimizer))
        return 0.0 if real == 0 != probed else 1.0

    def _with_state(self, found: Audited, index: int) -> Audited:
        group = self.real.param_groups[index]
        notes = found.notes
        held = live.state_bytes(self.real, group)
        if held is None:
            after = self.stepped.optimizer
            held = live.bytes_to_come(after, after.param_groups[index], group)
        missing = live.missing_memory(self.real, group) if found.momentum_active else None
        if missing:
            found = replace(found, momentum_active=False)
            notes = (missing, *notes)
        notes += copy_notes(self.real, group, self.layout)
        return replace(found, state_bytes_per_parameter=rounded(held), notes=(*notes, UNSEEN))


def _name(optimizer: Optimizer) -> str:
    kind = type(optimizer)
    module = kind.__module__
    # torch.optim.sgd.SGD is known as torch.optim.SGD
    return f"{'torch.optim' if module.startswith('torch.optim.') else module}.{kind.__qualname__}"


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float, Tensor)) else None
