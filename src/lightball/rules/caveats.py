"""What a conversion between conventions does not carry over, by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lightball.rules.conventions import Setting

SUM_FORM = ("torch", "keras", "optax-sgd", "optax-trace")
EMA_FORM = ("ema", "optax-ema")
CONVENTIONS = (*SUM_FORM, *EMA_FORM, "sgd")


@dataclass(frozen=True)
class Caveat:
    """A name to look for and one sentence to read."""

    name: str
    sentence: str


_SENTENCES = {
    "matched-rate": (
        "SGD takes the same total step for each gradient but at once: same noise-driven behaviour where "
        "effective_lr × sharpness is small, not the same trajectory."
    ),
    "undampened-first-step": (
        "torch leaves its first step undampened, so the first gradient counts 1/(1 − dampening) times as "
        "much as every other; the target dampens it too."
    ),
    "nesterov": (
        "Nesterov momentum moves each gradient's step forward in time but keeps its total, so the matched "
        "rate is the same; averaged_schedule does not describe it."
    ),
    "changing-momentum": (
        "At a momentum that changes during the run no constant factor converts the rate; the momentum-free "
        "match is then averaged_schedule."
    ),
    "keras-changing-lr": (
        "Keras stores lr inside its velocity, so after a change of lr old gradients still move by the old "
        "one; elsewhere they move by the new one."
    ),
    "keras-weight-decay": (
        "Keras decays the weights beside the velocity, elsewhere decay rides through the buffer: equal per "
        "step only in steady state."
    ),
    "weight-decay": (
        "The weight decay of the match keeps lr × weight_decay at what momentum applies per step in steady "
        "state, not during its first 1/(1 − momentum) steps."
    ),
}


def find(setting: Setting, to: str, clip: float | None = None) -> tuple[Caveat, ...]:
    """The caveats of converting a setting to another convention, most important first."""
    names = [name for name, applies in _conditions(setting, to).items() if applies]
    found = [Caveat(name, _SENTENCES[name]) for name in names]
    if _debias_at_stake(setting, to):
        found.append(Caveat("ema-debias", _debias_sentence(setting)))
    if clip is not None:
        sentence = (
            f"Keep clipping the gradient at {clip:g}, before the optimizer; a clip of the buffer or of the "
            "update does not convert, nor does a clip of gradients of a scaled loss."
        )
        found.append(Caveat("clipping", sentence))
    return tuple(found)


def _conditions(setting: Setting, to: str) -> dict[str, bool]:
    ends = (setting.convention, to)
    momentum, to_sgd, one_is_keras = setting.momentum > 0, to == "sgd", "keras" in ends
    changes_form = (setting.convention in SUM_FORM) != (to in SUM_FORM)
    return {
        "matched-rate": momentum and to_sgd,
        "undampened-first-step": momentum and setting.dampening != 0,
        "nesterov": setting.nesterov and to_sgd,
        "changing-momentum": momentum and (changes_form or to_sgd),
        "keras-changing-lr": momentum and one_is_keras and not to_sgd,
        "keras-weight-decay": momentum and one_is_keras and not to_sgd and setting.weight_decay != 0,
        "weight-decay": momentum and to_sgd and setting.weight_decay != 0,
    }


def exact(setting: Setting, to: str) -> bool:
    """Whether the trajectory stays the same to rounding at constant hyperparameters."""
    breaks = ("matched-rate", "undampened-first-step", "keras-weight-decay")
    conditions = _conditions(setting, to)
    return not _debiases(setting) and not any(conditions[name] for name in breaks)


def schedule_rule(setting: Setting, to: str) -> str:
    """What to do with the schedule of the learning rate."""
    if setting.momentum == 0 or to == setting.convention:
        return "Keep the schedule: the same factors at every step."
    if to == "sgd":
        return (
            "Keep the schedule, the same factors, while momentum is constant; where it changes, use "
            "averaged_schedule(lr, momentum)."
        )
    if _debiases(setting):
        return "Multiply the factor at step k = 0, 1, … by 1/(1 − momentum^(k+1))."
    if "keras" in (setting.convention, to):
        return "Keep the same factors; the trajectory stays the same only while they are constant."
    return "Keep the schedule: the same factors at every step, as long as momentum is constant."


def _debiases(setting: Setting) -> bool:
    return setting.debias and setting.momentum > 0


def _debias_at_stake(setting: Setting, to: str) -> bool:
    return setting.momentum > 0 and "optax-ema" in (setting.convention, to)


def _debias_sentence(setting: Setting) -> str:
    if setting.convention != "optax-ema":
        return "Set debias=False: optax.ema divides step k by 1 − momentum^(k+1) by default."
    if setting.debias:
        return (
            "optax.ema divides step k by 1 − momentum^(k+1), which makes the first steps larger; elsewhere "
            "only the schedule can do it."
        )
    return "This holds for debias=False; optax.ema's default, True, also scales the first steps."
