"""The page of SVAG: curvature turned down at the same noise, and SGD and SGDM coming together."""

from __future__ import annotations

import math
from collections.abc import Sequence

from lightball.dynamics.weak_error import WeakError
from lightball.report.figures.series import Series, series_chart
from lightball.report.making import making
from lightball.report.page import Figure, Figures, Page, Section, Table
from lightball.report.theory.agreement import agreement, held
from lightball.report.theory.numbers import with_bars, with_interval
from lightball.report.theory.orders import error_text
from lightball.report.theory.sde import sde_section
from lightball.stats.orders import Z95
from lightball.theory.as_json import finite
from lightball.theory.sde import SdeResult
from lightball.theory.svag import Curves, Gap, Measured, SvagResult


def svag_page(result: SvagResult, sde: SdeResult | None = None) -> Page:
    """The gap and the terms against ℓ, the losses behind them, and the orders against the SDEs if there are any."""
    given = result.settings
    spectrum = ", ".join(f"{h:g}" for h in given.spectrum)
    return Page(
        title="SVAG: curvature turned down at the same noise",
        answer=_answer(result),
        lead=_lead(result),
        sections=(
            Section("The gap between SGD and SGDM", (), (_gaps(result), _figure_of_gaps(result))),
            Section("The terms of a step", (), (_terms(result), _figure_of_terms(result))),
            Section("Losses along the way", (), (_figures_of_losses(result),)),
            *((sde_section(sde),) if sde else ()),
            making(
                (
                    ("loss", f"½ xᵀHx with curvatures {spectrum}, from x₀ = (1, …, 1)"),
                    ("gradient noise", f"{given.noise}, variance {given.variance:g} in each coordinate"),
                    ("learning rate", f"η = {given.lr:g} at ℓ = 1, η/ℓ under SVAG(ℓ)"),
                    ("momentum", f"β = {given.momentum:g}, {_kept(result)}"),
                    ("time", f"T = {given.horizon:g}, ℓT/η steps"),
                    ("trajectories", f"{given.trajectories:,}"),
                    ("seed", str(given.seed)),
                )
            ),
        ),
    )


def _answer(result: SvagResult) -> str:
    ells, exact = result.settings.simulated_ells, result.largest.exact
    first, last = exact.errors[0], exact.errors[len(ells) - 1]
    local = exact.order().local
    if local is None or not math.isfinite(last):
        return f"SGD diverges up to ℓ = {ells[-1]} at so large a learning rate: choose a smaller one, or larger ℓ."
    spans = f"from {_value(first)} at ℓ = {ells[0]} to {_value(last)} at ℓ = {ells[-1]}"
    if local.order < 0.2:
        return f"With less curvature in a step SGD and SGDM stay apart: the gap of their losses goes {spans}."
    power = "in proportion to 1/ℓ" if abs(local.order - 1) < 0.1 else f"as ℓ^−{local.order:.2f}"
    power += " between ℓ = {} and {}".format(*result.settings.all_ells[-2:])
    together = "With less curvature in a step SGD and SGDM come together"
    if last > first:
        return f"{together} where ℓ is large: the gap of their losses rises {spans}, and falls {power}."
    return f"{together}: the gap of their losses falls {spans}, and {power}."


def _lead(result: SvagResult) -> tuple[str, ...]:
    given = result.settings
    said = [
        "SVAG(ℓ) combines two gradients so that their mean stays and their covariance is ℓ times as large, and takes ℓ "
        "steps of rate η/ℓ for one: the noise of a run is the same, the curvature-induced change of the loss is 1/ℓ. "
        + (
            "With β as it is, what momentum changes must go away with it."
            if given.memory == "steps"
            else "Here the memory of the buffer lasts as long in time as at ℓ = 1, with a β closer to 1: SGDM then "
            "tends to the underdamped SDE, and not to SGD."
        )
    ]
    if unstable := [f"{ell}" for ell in given.all_ells if given.lr * max(given.spectrum) >= 2 * ell]:
        said.append(
            f"At ℓ = {', '.join(unstable)} the rate η/ℓ times the largest curvature is 2 or more, which SGD cannot "
            "bear: its loss grows without bound, and the gap with it."
        )
    near, total = held((gap.exact, gap.simulated) for gap in (result.largest, result.final))
    if total:
        said.append(
            f"Lines are exact moments. A simulation of {given.trajectories:,} coupled trajectories with the SVAG "
            f"oracle {agreement(near, total, 'the exact gap')}"
        )
    return tuple(said)


def _gaps(result: SvagResult) -> Table:
    given = result.settings
    simulated, changing = given.trajectories > 0, given.memory == "time"
    head = (
        "ℓ",
        *(("β",) if changing else ()),
        "largest gap",
        *(("simulated (95 %)",) if simulated else ()),
        "gap at the end",
        *(("simulated (95 %)",) if simulated else ()),
    )
    rows = []
    for place, ell in enumerate(given.all_ells):
        cells = [f"{ell}", *((f"{given.momentum_at(ell):.5g}",) if changing else ())]
        for gap in (result.largest, result.final):
            cells.append(_value(gap.exact.errors[place]))
            if simulated:
                cells.append(_with_interval(gap.simulated, place))
        rows.append(tuple(cells))
    caption = f"|E L(SGD) − E L(SGDM)| over times up to T = {given.horizon:g}, and at T"
    return Table(head, tuple(rows), caption, numeric=tuple(range(len(head))))


def _figure_of_gaps(result: SvagResult) -> Figure:
    ells = list(result.settings.all_ells)
    largest = [finite(error) for error in result.largest.exact.errors]
    end = largest[-1]
    series = [
        Series("1/ℓ", ells, [end and end * ells[-1] / ell for ell in ells], mark="dashes"),
        *_lines_and_points("largest gap", 2, ells, result.largest),
        *_lines_and_points("gap at the end", 3, ells, result.final),
    ]
    chart = series_chart(
        series,
        x="ℓ",
        y="gap of the expected losses",
        log_x=True,
        log_y=True,
        description="The gap between the expected losses of SGD and SGDM against ℓ, both axes logarithmic: it falls "
        "along the dashed line of 1/ℓ where ℓ is large.",
        height=260,
    )
    points = " Points are simulated, with 95 % intervals; noise limits the hollow ones." if _simulated(result) else ""
    return Figure("svag-gap", chart, f"Exact gaps by ℓ; the dashed line falls as 1/ℓ.{points}")


def _lines_and_points(name: str, colour: int, ells: Sequence[float], gap: Gap) -> list[Series]:
    found = [Series(name, ells, [finite(error) for error in gap.exact.errors], colour=colour)]
    if gap.simulated is not None:
        of = gap.simulated
        hollow = [not used for used in of.order().used]
        at = [1 / eta for eta in of.etas]
        found.append(with_bars(name, at, of.errors, of.standard_errors, colour=colour, hollow=hollow))
    return found


def _terms(result: SvagResult) -> Table:
    head = ("ℓ", "descent", "curvature-induced", "measured (95 %)", "noise-induced", "measured (95 %)")
    rows = tuple(
        (
            f"{term.ell}",
            _value(result.descent),
            _value(term.curvature),
            _measured(term.measured_curvature),
            _value(term.noise),
            _measured(term.measured_noise),
        )
        for term in result.terms
    )
    caption = "Change of the loss at x₀ in a time η, by its formula and from pairs of SVAG's gradients"
    return Table(head, rows, caption, numeric=tuple(range(len(head))))


def _figure_of_terms(result: SvagResult) -> Figure:
    ells = [term.ell for term in result.terms]
    series = [Series("descent (size)", ells, [-result.descent] * len(ells), mark="dashes")]
    kinds = {
        "noise-induced": (2, [t.noise for t in result.terms], [t.measured_noise for t in result.terms]),
        "curvature-induced": (3, [t.curvature for t in result.terms], [t.measured_curvature for t in result.terms]),
    }
    for name, (colour, formula, measured) in kinds.items():
        series.append(Series(name, ells, formula, colour=colour))
        series.append(_points(name, ells, measured, colour))
    chart = series_chart(
        series,
        x="ℓ",
        y="change of the loss in a time η",
        log_x=True,
        log_y=True,
        description="The three terms of the change of the loss against ℓ: descent and the noise-induced one stay, the "
        "curvature-induced one falls as 1/ℓ.",
    )
    return Figure("svag-terms", chart, "Only the curvature-induced term falls, as 1/ℓ. Points are measured.")


def _figures_of_losses(result: SvagResult) -> Figures:
    curves = result.curves
    chosen = dict.fromkeys((0, len(curves) // 2, len(curves) - 1))
    return Figures(tuple(_figure_of_losses(curves[i]) for i in chosen))


def _figure_of_losses(curves: Curves) -> Figure:
    series = [
        Series(name, curves.times, [finite(value) for value in curves.exact[name]], colour=name)
        for name in curves.exact
    ]
    series += [_points(name, curves.times, points, name) for name, points in curves.simulated.items()]
    chart = series_chart(
        series,
        x="time ηk",
        y="expected loss",
        title=f"ℓ = {curves.ell}",
        description=f"Expected losses of SGD and SGDM under SVAG({curves.ell}) against time.",
    )
    return Figure(f"svag-losses-{curves.ell}", chart)


def _points(name: str, x: Sequence[float], measured: Sequence[Measured], colour: int | str) -> Series:
    return with_bars(name, x, [one.mean for one in measured], [one.se for one in measured], colour=colour)


def _kept(result: SvagResult) -> str:
    return "the same at every ℓ" if result.settings.memory == "steps" else "1 − β divided by ℓ"


def _simulated(result: SvagResult) -> bool:
    return result.settings.trajectories > 0


def _with_interval(found: WeakError | None, place: int) -> str:
    if found is None or place >= len(found.errors):
        return "–"
    return with_interval(found.errors[place], Z95 * found.standard_errors[place])


def _measured(value: Measured) -> str:
    return with_interval(value.mean, Z95 * value.se)


def _value(value: float) -> str:
    return error_text(value).replace("-", "−")
