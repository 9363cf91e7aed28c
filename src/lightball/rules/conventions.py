"""How libraries write momentum, and the conversion between them through the canonical form.

    torch                     b ← μ b + (1 − dampening) g     x ← x − lr · b     first b is g, undampened
    optax-sgd, optax-trace    b ← μ b + g                     x ← x − lr · b
    keras                     v ← μ v − lr · g                x ← x + v
    ema, optax-ema            m ← β m + (1 − β) g             x ← x − lr · m
    sgd                                                       x ← x − lr · g

Weight decay is added to the gradient; Keras instead shrinks x by lr · weight_decay, beside its velocity.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from lightball.errors import InputError
from lightball.rules import caveats, kernel
from lightball.rules.caveats import CONVENTIONS, EMA_FORM, SUM_FORM, Caveat


@dataclass(frozen=True)
class Setting:
    """An optimizer's hyperparameters in the words of one convention; refused if that convention lacks them.

    debias is optax's `ema(debias=True)`, which divides step k by 1 − β^(k+1). Raises `InputError`.
    """

    convention: str
    lr: float
    momentum: float = 0.0
    dampening: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0
    debias: bool = False

    def __post_init__(self) -> None:
        _require_known(self.convention)
        hyper = kernel.Hyperparameters(self.lr, self.momentum, self.dampening, self.weight_decay, self.nesterov)
        kernel.validate(hyper)
        for name, conventions in _WHO_HAS.items():
            value = getattr(self, name)
            if value and self.convention not in conventions:
                raise InputError(
                    f"{name} is {value} in convention '{self.convention}', which has none; required is "
                    f"{name} {type(value)(0)}, or one of {', '.join(conventions)}"
                )

    @property
    def effective_lr(self) -> float:
        """η of the canonical form m' = β m + (1 − β) g, x' = x − η m'; lr (1 − dampening)/(1 − μ) in sums."""
        if self.convention in SUM_FORM and self.momentum > 0:
            return self.lr * (1 - self.dampening) / (1 - self.momentum)
        return self.lr

    @property
    def effective_weight_decay(self) -> float:
        """The decay λ which, added to the gradient, shrinks x by effective_lr · λ a step in steady state."""
        if self.convention == "keras":
            return self.weight_decay * (1 - self.momentum)
        return self.weight_decay


_WHO_HAS = {
    "momentum": SUM_FORM + EMA_FORM,
    "dampening": ("torch",),
    "nesterov": SUM_FORM,
    "debias": ("optax-ema",),
}


@dataclass(frozen=True)
class Conversion:
    """A setting in another convention and how far it can be trusted.

    exact: the same trajectory to rounding from the first step on, at constant momentum and with the same
    factors of the learning rate (constant ones, where schedule_rule says so). If not, caveats name why.
    """

    setting: Setting
    effective_lr: float
    exact: bool
    schedule_rule: str
    caveats: tuple[Caveat, ...]


def convert(setting: Setting, to: str, clip: float | None = None) -> Conversion:
    """The same optimizer in the convention `to`; for `to="sgd"` its momentum-free match, lr = effective_lr.

    clip is the threshold of the gradient's norm, if the run clips. Raises `InputError` for an unknown
    convention and for Nesterov momentum into a form that has none. Source: arXiv:2307.15196, §2.
    """
    _require_known(to)
    if clip is not None and not 0 < clip < math.inf:
        raise InputError(f"clip is {clip:g}; required is a finite norm > 0, or none if the run does not clip")
    if setting.nesterov and to in EMA_FORM:
        raise InputError(
            f"nesterov cannot be written in convention '{to}'; required is nesterov=False or a target with "
            f"Nesterov momentum: {', '.join(SUM_FORM)}, or sgd for the momentum-free match"
        )
    same = to == setting.convention
    return Conversion(
        setting=setting if same else _written_in(to, setting),
        effective_lr=setting.effective_lr,
        exact=same or caveats.exact(setting, to),
        schedule_rule=caveats.schedule_rule(setting, to),
        caveats=() if same else caveats.find(setting, to, clip),
    )


def _written_in(to: str, setting: Setting) -> Setting:
    momentum = 0.0 if to == "sgd" else setting.momentum
    lr, weight_decay = setting.effective_lr, setting.effective_weight_decay
    if to in SUM_FORM:
        lr *= 1 - momentum
        if setting.convention in SUM_FORM and setting.dampening == 0:
            lr = setting.lr  # the same number, without the rounding of there and back
    if to == "keras":
        weight_decay /= 1 - momentum
    return Setting(to, lr, momentum, nesterov=setting.nesterov and to != "sgd", weight_decay=weight_decay)


def _require_known(convention: str) -> None:
    if convention not in CONVENTIONS:
        raise InputError(f"unknown convention '{convention}'; valid are {', '.join(CONVENTIONS)}")
