"""The audit: experiments on a copy, the rule that they show, and what the optimizer says that they do not show."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache, partial

from torch.optim import Optimizer

from lightball.errors import InputError
from lightball.optim.auditing import live, nonlinear
from lightball.optim.auditing.audited import Audited, Family, number, rounded
from lightball.optim.auditing.clips import limit, passed
from lightball.optim.auditing.contradictions import contradictions, copy_notes
from lightball.optim.auditing.rates import factor, raised_rates
from lightball.optim.auditing.responses import LATE, SCALES, Responses, excitation, measure
from lightball.optim.auditing.rule import EXACT, SINGLE, FoundRule, find_rule
from lightball.optim.auditing.stand_in import maker, undisturbed
from lightball.optim.auditing.words import UNSEEN as UNSEEN
from lightball.optim.wrappers import layers
from lightball.user_files import module_shown


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


def _unwrapped(optimizer: object) -> tuple[Optimizer, tuple[str, ...]]:
    *wrappers, inner = layers(optimizer)
    if not isinstance(inner, Optimizer):
        raise InputError(f"audit got a {type(inner).__name__}; required is a torch.optim.Optimizer: give that")
    names = [type(each).__name__ for each in wrappers]
    return inner, tuple(
        f"this is the optimizer inside {name}, without what {name} does around its step" for name in names
    )


class Bench:
    """The experiments with one optimizer; each is made once, for all groups."""

    def __init__(self, optimizer: Optimizer) -> None:
        self.real = optimizer
        make = maker(optimizer)
        self.make = partial(make, raised=raised_rates(optimizer, make, make()))
        self.layout = self.make()
        self.ladder = nonlinear.runs_from_zero(self.make)
        self.responses = cache(lambda scale: measure(self.make, scale))
        self.passed = cache(lambda: passed(self.make, self.responses(SCALES[0])))
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
            found = self._linear(found, rule, single)
            found = self._limited(found) if scale < 1 else found
        else:
            found = self._other(found, part, scale, seen)
        return self._with_state(found, index)

    def _rule(self, index: int, scale: float | None) -> tuple[FoundRule | None, bool]:
        """The linear rule, if there is one, and whether it only holds to single precision."""
        if scale is None:
            return None, False
        seen = self.responses(scale).of(self.layout.slices[index])
        lr = number(self.layout.optimizer.param_groups[index].get("lr"))
        for tolerance in (EXACT, SINGLE):
            rule = find_rule(seen, lr, tolerance)
            if rule is not None:
                return rule, tolerance == SINGLE
        return None, False

    def _linear(self, found: Audited, rule: FoundRule, single: bool) -> Audited:
        rate = factor(self.real, self.layout, found.group)
        notes = contradictions(self.real.param_groups[found.group], rule, rate)
        if single:
            notes += ("the numbers hold to 2e-6 only: its steps are computed in single precision, or change slowly",)
        family: Family = "nesterov" if rule.nesterov else "sgdm" if rule.momentum else "sgd"
        decay = rule.shrink / rule.lr if rule.shrink else rule.weight_decay
        strength = rule.shrink or rule.effective_lr * rule.weight_decay
        return replace(
            found,
            family=family,
            lr=rounded(rate * rule.lr),
            effective_lr=rounded(rate * rule.effective_lr) if rate else 0.0,
            momentum=rounded(rule.momentum),
            dampening=rounded(rule.dampening),
            nesterov=rule.nesterov,
            momentum_active=rule.momentum != 0,
            memory_length=rounded(1 / (1 - rule.momentum)) if rule.momentum < 1 else math.inf,
            first_step=rounded(rule.first_step),
            weight_decay=rounded(decay),
            decoupled=rule.shrink != 0,
            decay_per_step=rounded(rate * strength) if rate else 0.0,
            maximize=rule.sign < 0,
            notes=notes,
        )

    def _limited(self, found: Audited) -> Audited:
        size, note = limit(self.passed(), self.layout, found.group)
        if size is None:
            return replace(found, nonlinearity="skipping", notes=(*found.notes, note))
        return replace(found, nonlinearity="clipping", clips_at=rounded(size), notes=(*found.notes, note))

    def _other(self, found: Audited, part: slice, scale: float | None, seen: Responses) -> Audited:
        if nonlinear.is_random(self.make, self.ladder[SCALES[0]], part):
            active = nonlinear.remembers_beside_noise(self.make, part)
            return replace(found, nonlinearity="random", momentum_active=active)
        active = nonlinear.has_memory(seen.first) or nonlinear.has_memory(seen.late, LATE)
        found = replace(found, momentum_active=active)
        decay = nonlinear.decoupled_decay(seen)
        if not seen.free.sub(seen.start).any():
            return replace(found, family="linear, other", notes=("its steps do not move its parameters",))
        if scale is not None and nonlinear.is_additive(self.make, part, scale):
            varies = nonlinear.changes_in_time(seen.first, seen.late)
            note = "the same gradient has another effect at a later step" if varies else "not a rule of SGD"
            return replace(found, family="linear, other", notes=(note,))
        lr = number(self.layout.optimizer.param_groups[found.group].get("lr"))
        rate = factor(self.real, self.layout, found.group)
        return replace(
            found,
            nonlinearity=nonlinear.kind_of(self.make, part),
            decoupled=None if decay is None else decay > 0,
            weight_decay=rounded(decay / lr) if decay and lr else decay if decay == 0 else None,
            decay_per_step=None if decay is None else rounded(rate * decay),
        )

    def _with_state(self, found: Audited, index: int) -> Audited:
        group = self.real.param_groups[index]
        notes = found.notes
        after = self.stepped.optimizer
        names = live.buffer_names(after, after.param_groups[index])
        held = live.state_bytes(self.real, group)
        if held is None:
            held = live.bytes_to_come(after, after.param_groups[index], group)
        if found.momentum_active:
            active, why = live.memory_now(self.real, group, names)
            found = replace(found, momentum_active=active)
            notes = (why, *notes) if why else notes
        notes += copy_notes(self.real, group, self.stepped)
        return replace(found, state_bytes_per_parameter=rounded(held), notes=(*notes, UNSEEN))


def _name(optimizer: Optimizer) -> str:
    kind = type(optimizer)
    module = module_shown(kind.__module__)
    # torch.optim.sgd.SGD is known as torch.optim.SGD
    return f"{'torch.optim' if module.startswith('torch.optim.') else module}.{kind.__qualname__}"
