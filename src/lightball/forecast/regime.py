"""What limits a run at its setting: noise or curvature."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from lightball.probe import Estimate, Probe
from lightball.probe.estimates import ratio_estimate

RegimeName = Literal["noise-dominated", "curvature-dominated", "mixed", "not determined"]

APART = 3.0
"""By how many times one limit lies below the other where it is said to dominate."""
WIDE = 3.0
"""How many times its lower end the upper end of an interval may be, where its ends call for different names."""
STABLE = 2.0
"""η λ_max at which SGD stops being stable on a quadratic."""


@dataclass(frozen=True)
class Terms:
    """What one step of SGD at effective rate η and batch size B is expected to change of the loss, in three terms.

    descent = −η‖g‖², curvature = ½η² gᵀHg, noise = ½η² tr(HΣ)/B. Source: arXiv:2307.15196, §2.
    """

    descent: float
    curvature: float
    noise: float


@dataclass(frozen=True)
class Regime:
    """Which of the terms limits the rate, why, and by which thresholds that is judged.

    ``noise_lr`` is the rate at which noise undoes the descent, 2B‖g‖²/tr(HΣ), with its interval; ``curvature_lr`` that
    at which SGD stops being stable, 2/λ_max. ``thresholds`` names what they were held against. ``more_batches``: so
    many more of the probe's batches would tell, where it is not determined; None where no number of them would.
    """

    name: RegimeName
    reason: str
    thresholds: dict[str, float]
    noise_lr: Estimate
    curvature_lr: float
    more_batches: int | None = None


def terms_of(probe: Probe, effective_lr: float, batch_size: int) -> Terms:
    """The three terms of a step."""
    half = 0.5 * effective_lr**2
    return Terms(
        -effective_lr * probe.gradient_norm_squared.value,
        half * probe.gradient_curvature,
        half * probe.noise_curvature.value / batch_size,
    )


def regime_of(probe: Probe, effective_lr: float, batch_size: int) -> Regime:
    """Which of two limits of SGD's rate comes first, and by how much.

    Raising the rate, noise undoes the descent at η_n = 2B‖g‖²/tr(HΣ), where the third term of a step equals the first,
    and curvature ends stability at η_c = 2/λ_max. Noise-dominated: η_n ≤ η_c/3, and the user's rate below η_c.
    Curvature-dominated: η_n ≥ 3 η_c. Mixed: between, or noise-dominated but for a rate that SGD does not stand.
    """
    noise = _noise_lr(probe, batch_size)
    sharpness = probe.sharpness.value
    stable = STABLE / sharpness if sharpness > 0 else math.inf
    thresholds = {"apart": APART, "noise_lr": noise.value, "curvature_lr": stable, "stable": STABLE}
    names = [_name(rate, stable, effective_lr) for rate in (noise.low, noise.value, noise.high)]
    if names[0] != names[2] and noise.high > WIDE * noise.low:
        reason = (
            f"noise undoes the descent at a rate between {noise.low:.2g} and {noise.high:.2g}, too wide to tell "
            f"whether that comes before curvature's limit, 2/λ_max = {stable:.2g}"
        )
        return Regime("not determined", reason, thresholds, noise, stable, _more_batches(probe, noise))
    return Regime(names[1], _reason(names[1], noise, stable, effective_lr), thresholds, noise, stable)


def _noise_lr(probe: Probe, batch_size: int) -> Estimate:
    """2B‖g‖²/tr(HΣ), from a ratio of means: 0 where the gradient may be noise, inf where nothing limits."""
    if probe.noise_curvature.high <= 0:
        return Estimate(math.inf, math.inf, math.inf, probe.noise_curvature.n)
    ratio = ratio_estimate(probe.gradient_norm_squared, probe.noise_curvature)
    value, low, high = (max(2 * batch_size * end, 0.0) for end in (ratio.value, ratio.low, ratio.high))
    return Estimate(value, low, high, ratio.n)


def _name(noise_lr: float, curvature_lr: float, effective_lr: float) -> RegimeName:
    if noise_lr == math.inf and curvature_lr == math.inf:
        return "mixed"
    if noise_lr >= APART * curvature_lr:
        return "curvature-dominated"
    if noise_lr > curvature_lr / APART or effective_lr >= curvature_lr:
        return "mixed"
    return "noise-dominated"


def _reason(name: RegimeName, noise: Estimate, curvature_lr: float, effective_lr: float) -> str:
    here = f"your η is {effective_lr:.2g}"
    undone = f"noise undoes the descent at {'no η' if noise.value == math.inf else f'η = {noise.value:.2g}'}"
    if curvature_lr == math.inf:
        last = "nothing limits the rate" if noise.value == math.inf else "noise comes first"
        return f"{undone}, and no curvature was found that ends SGD's stability: {last}; {here}"
    limits = f"{undone}, curvature ends SGD's stability at {curvature_lr:.2g}"
    if name == "noise-dominated":
        return f"{limits}: noise comes first, at least {APART:g} times lower; {here}"
    if name == "curvature-dominated":
        return f"{limits}: curvature comes first, at least {APART:g} times lower; {here}"
    if noise.value <= curvature_lr / APART:
        return f"{limits}: noise comes first, but {here}, which SGD does not stand"
    return f"{limits}: both are within {APART:g} times of each other; {here}"


def _more_batches(probe: Probe, noise: Estimate) -> int | None:
    """How many more would narrow the interval to ``WIDE``; intervals shrink with the root of their number."""
    size = max(1, round(probe.gradient_examples / max(probe.noise_batches, 1)))
    left = (probe.training_examples - probe.gradient_examples) // size
    if left < 1:
        return None
    if noise.low > 0 and noise.high < math.inf:
        times = (math.log(noise.high / noise.low) / math.log(WIDE)) ** 2
    else:  # the half-width of one of the means, relative to it, has to come down to a half
        means = (probe.gradient_norm_squared, probe.noise_curvature)
        times = max((2 * (m.high - m.value) / m.value) ** 2 if m.value > 0 else math.inf for m in means)
    if not math.isfinite(times):
        return left
    return min(left, max(1, math.ceil((times - 1) * probe.noise_batches)))
