"""How a model is trained."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypeGuard, get_args

from lightball.errors import InputError
from lightball.oracles import SamplingKind
from lightball.rules import schedules
from lightball.training.batch_norm import BatchNormStatistics

Precision = Literal["float32", "bfloat16", "float16"]
Decay = Literal["all", "matrices"]


@dataclass(frozen=True)
class Recipe:
    """SGD (momentum 0) or SGDM, in the canonical form m' = β m + (1 − β) g, x' = x − η m' from m₀ = 0.

    Args:
        batch_size: examples of a step.
        effective_lr: η.
        momentum: β.
        epochs: passes over the training data.
        num_steps: instead of whole epochs, so many steps; under SVAG, as many of ell = 1. The schedule runs over them.
        weight_decay: times the weights, added to the gradient, as in ``torch.optim.SGD``.
        decay: "all" parameters; or "matrices", which leaves out those of at most one axis: biases, normalisation.
        schedule: of the learning rate, as text: see :func:`lightball.rules.schedules.parse`.
        sampling: "shuffle" (without replacement) or "iid" (with).
        drop_last: leave out the incomplete last batch of an epoch.
        precision: "float32" computes in the dtype of the model; "bfloat16" and "float16" run forward pass and loss
            under ``torch.autocast``, while parameters and update stay as they are. "float16" scales the loss.
        accumulate: micro-batches of a step; the gradient is that of the mean loss over the whole batch.
        ell: of SVAG: ``ell`` times as many steps, each of 1/ell of the rate, with r₊ g₁ + r₋ g₂ of two minibatches, so
            that noise does what it did and curvature 1/ell of it. Epochs are then those of ell = 1: an epoch reads the
            data 2 ell times. 1 is SGD itself.
        batch_norm: of BatchNorm under SVAG: "each" minibatch of the two is normalised by its own statistics and updates
            the running ones, "once" lets the first alone update them; "frozen", at any ell, normalises by the running
            ones and leaves them alone.
        clip_norm: the norm of the gradient, over all parameters together, to which a larger one is scaled; 0: none.
        eval_every: steps between points of the curve; None: an epoch. One is always taken at each end.
        in_backward: update each parameter as soon as its gradient is complete, so that one gradient lives at a time
            instead of all of them, see :mod:`lightball.optim.in_backward`; the trajectory is the same to rounding. With
            ``clip_norm`` each step takes two passes, the first for the norm.
        compile: run the forward pass of a training step, and so its backward pass, through ``torch.compile``.

    Raises:
        InputError: one line on the first value that cannot be used.
    """

    batch_size: int
    effective_lr: float
    momentum: float = 0.0
    epochs: int = 1
    weight_decay: float = 0.0
    schedule: str = "constant"
    sampling: SamplingKind = "shuffle"
    drop_last: bool = True
    precision: Precision = "float32"
    accumulate: int = 1
    ell: int = 1
    batch_norm: BatchNormStatistics = "each"
    clip_norm: float = 0.0
    eval_every: int | None = None
    num_steps: int | None = None
    decay: Decay = "all"
    in_backward: bool = False
    compile: bool = False

    def __post_init__(self) -> None:
        for name in ("batch_size", "epochs", "accumulate", "ell"):
            require_count(name, getattr(self, name))
        for name in ("eval_every", "num_steps"):
            if getattr(self, name) is not None:
                require_count(name, getattr(self, name))
        for name, required in _NUMBERS.items():
            value = getattr(self, name)
            _require(_is_number(value) and value >= 0, name, value, required)
        _require(self.effective_lr > 0, "effective_lr", self.effective_lr, _NUMBERS["effective_lr"])
        _require(self.momentum < 1, "momentum", self.momentum, _NUMBERS["momentum"])
        for name in ("drop_last", "in_backward", "compile"):
            _require(isinstance(getattr(self, name), bool), name, getattr(self, name), "True or False")
        _require(
            self.accumulate <= self.batch_size,
            "accumulate",
            self.accumulate,
            f"at most the batch size, {self.batch_size}: a micro-batch has at least one example",
        )
        _require(
            self.drop_last or self.ell == 1,
            "drop_last",
            self.drop_last,
            "True where ell is above 1: SVAG combines two minibatches of one size",
        )
        _require(
            not (self.in_backward and self.precision == "float16"),
            "in_backward",
            self.in_backward,
            "False in float16, whose gradients are scaled until all are there: use bfloat16 or float32",
        )
        _require(
            not (self.in_backward and self.compile),
            "in_backward",
            self.in_backward,
            "False with compile, whose backward pass makes all gradients at once: choose one of the two",
        )
        for name, kind in (
            ("sampling", SamplingKind),
            ("precision", Precision),
            ("batch_norm", BatchNormStatistics),
            ("decay", Decay),
        ):
            _require(getattr(self, name) in get_args(kind), name, getattr(self, name), " or ".join(get_args(kind)))
        _require(isinstance(self.schedule, str), "schedule", self.schedule, f"text: {schedules.VALID_SPECS}")
        schedules.parse(self.schedule, num_steps=1000)


_NUMBERS = {
    "effective_lr": "a finite number above 0",
    "momentum": "a number from 0 up and below 1; 0 is SGD",
    "weight_decay": "a finite number from 0 up",
    "clip_norm": "a finite number from 0 up; 0 clips nothing",
}


def require_count(name: str, value: object) -> None:
    """Refuse what is not a whole number from 1 up."""
    whole = isinstance(value, int) and not isinstance(value, bool) and value >= 1
    _require(whole, name, value, "a whole number from 1 up")


def require_seconds(name: str, value: object) -> None:
    """Refuse what is not a number of seconds above 0."""
    _require(_is_number(value) and value > 0, name, value, "a finite number above 0")


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _require(holds: bool, name: str, value: object, required: str) -> None:
    if not holds:
        raise InputError(f"{name} is {value!r}, but must be {required}")
