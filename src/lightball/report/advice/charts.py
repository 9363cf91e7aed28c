"""The figures of an advice, made from its probes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from lightball.report.advice.heat_map import heat_map
from lightball.report.advice.spectra import spectra_chart
from lightball.report.advice.words import number
from lightball.report.figures.series import Series, series_chart
from lightball.report.page import Figure

if TYPE_CHECKING:
    from lightball.forecast.advice import Advice
    from lightball.probe import Probe

_DOWN, _UP, _ASIDE = 5, 2, 3  # factors of two from the setting to the edges of the map
_HIGHEST = 4.0  # times the first loss: what rises above is not drawn
_NEAR = 5.0  # times the largest curvature


def map_of(advice: Advice) -> Figure:
    """The value of momentum around the setting, from the probe of the main phase."""
    from lightball.forecast import value_map

    at, value = advice.by_phase[advice.main], advice.value_of_momentum
    probe, rate = at.phase.probe, advice.setting.effective_lr
    sizes = {round(advice.batch_size * 2.0**k) for k in range(-_ASIDE, _ASIDE + 1)}
    found = value_map(
        probe,
        [rate * 2.0**k for k in range(-_DOWN, _UP + 1) if k <= 0 or _is_followed(probe, rate * 2**k * value.num_steps)],
        sorted(size for size in sizes if 1 <= size <= probe.training_examples),
        advice.setting.momentum,
        num_steps=value.num_steps,
        sampling=advice.sampling,
        warm=advice.warm,
    )
    return Figure(
        "value-map",
        heat_map(found, value.margin, (rate, advice.batch_size)),
        f"SGD's loss minus SGDM's after {value.num_steps:,} steps at the same effective learning rate, from the phase "
        f"“{at.phase.name}”; positive favours momentum, and {number(value.margin)} does not matter. Hatched: the "
        "forecast is not valid there. Framed: your setting.",
    )


def _is_followed(probe: Probe, time: float) -> bool:
    """Whether the path ahead was followed to a flow time."""
    return not probe.path or time <= probe.path[-1].time * (1 + 1e-9)


def forecasts(advice: Advice) -> Figure:
    """Expected losses of both rules at the setting."""
    from lightball.forecast import forecast

    at, value = advice.by_phase[advice.main], advice.value_of_momentum
    found = forecast(
        at.phase.probe,
        advice.setting.effective_lr,
        advice.setting.momentum,
        batch_size=advice.batch_size,
        num_steps=value.num_steps,
        sampling=advice.sampling,
        warm=advice.warm,
    )
    steps = [int(step) for step in found.steps]
    sgd, sgdm = ([_drawn(float(loss), found.sgd[0]) for loss in losses] for losses in (found.sgd, found.sgdm))
    chart = series_chart(
        [
            Series("SGD", steps, sgd, colour="SGD"),
            Series(f"SGDM, β = {advice.setting.momentum:g}", steps, sgdm, colour="SGDM", mark="dashes"),
        ],
        x="steps from here",
        y="expected training loss",
        description=f"Expected loss of SGD and SGDM over {value.num_steps:,} steps at the effective learning rate "
        f"{found.effective_lr:g} and batch size {found.batch_size:,}.",
    )
    said = f"Both at η = {found.effective_lr:g}, from the phase “{at.phase.name}”."
    if found.validity.valid:
        said += (
            f" Of the difference at the end, {number(found.from_lag)} comes from momentum's lag and "
            f"{number(found.from_noise)} from less noise."
        )
    return Figure("forecast", chart, said)


def _drawn(loss: float, first: float) -> float | None:
    """A loss, unless it diverges."""
    return loss if math.isfinite(loss) and loss <= _HIGHEST * abs(first) else None


def spectra(advice: Advice) -> tuple[Figure, ...]:
    """Both spectral measures of each phase; curvatures near them up to which each rule is stable are marked."""
    rate, beta = advice.setting.effective_lr, advice.setting.momentum
    stable = {"SGD": 2 / rate, "SGDM": 2 * (1 + beta) / (1 - beta) / rate}
    figures = []
    for place, phase in enumerate(advice.phases):
        probe = phase.probe
        near = {name: limit for name, limit in stable.items() if limit <= _NEAR * abs(probe.sharpness.value)}
        chart = spectra_chart(probe.gradient, probe.noise, near, phase.name)
        said = f"Curvature reaches from {number(probe.smallest.value)} to {number(probe.sharpness.value)}."
        if near:
            said += (
                f" Dashed: up to there {' and '.join(near)} {'are' if len(near) > 1 else 'is'} stable at η = {rate:g}."
            )
        figures.append(Figure(f"spectra-{place + 1}", chart, said))
    return tuple(figures)
