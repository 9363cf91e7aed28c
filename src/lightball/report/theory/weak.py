"""The page of weak errors: how fast SGD with momentum becomes SGD, beside what is proven."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from lightball.report.figures.series import Mark, Series, series_chart
from lightball.report.making import making
from lightball.report.page import Figure, Page, Section, Table
from lightball.report.theory.agreement import agreement, held
from lightball.report.theory.numbers import told_apart, with_bars, with_interval
from lightball.report.theory.orders import error_text, eta_text, order_text, order_with_interval
from lightball.stats import Slope
from lightball.stats.orders import Z95
from lightball.theory.as_json import finite
from lightball.theory.weak import Alpha, Weak, momentum_at

LOSSES = {"quadratic": "½x²", "log-cosh": "log cosh x", "cosine": "1 − cos x"}
NOISES = {"gaussian": "Gaussian", "rademacher": "Rademacher", "student-t": "Student t (5 degrees of freedom)"}
_TOO_NOISY = "too few errors are above their noise: simulate more trajectories"


def weak_page(result: Weak) -> Page:
    """Errors against the learning rate, orders against α, and every point."""
    given = result.settings
    kind = "exact moments" if given.is_exact else f"{given.num_trajectories:,} trajectories"
    return Page(
        title=f"Weak error of SGD with momentum against SGD: {LOSSES[given.loss]}, {kind}",
        answer=_answer(result),
        lead=tuple(_lead(result)),
        sections=(
            Section("Orders", (), (_orders(result), _figure_of_orders(result))),
            Section("Errors", (), (_figure_of_errors(result),)),
            Section("Every point", (), (_points(result),), folded=True),
            making(
                (
                    ("loss", LOSSES[given.loss]),
                    ("gradient noise", f"{NOISES[given.noise]}, variance 1/η"),
                    ("start", "x₀ = 1, m₀ = 0"),
                    ("time", f"T = {given.horizon:g}, T/η steps"),
                    ("trajectories", f"{given.num_trajectories:,}"),
                    ("seed", str(given.seed)),
                )
            ),
        ),
    )


def _answer(result: Weak) -> str:
    orders = [result.order(one.error) for one in result.results]
    if not any(orders):
        why = "all runs diverge: choose smaller rates" if result.settings.is_exact else _TOO_NOISY
        return f"No order could be measured: {why}."
    approaching = [one for one in result.results if one.alpha < 1]
    staying = [one for one in result.results if one.alpha >= 1]
    if not approaching:
        return f"SGD with momentum does not approach SGD as η falls: {_orders_of(result, staying)}."
    rest = f"; not for α ≥ 1: {_orders_of(result, staying)}" if staying else ""
    return (
        f"As η falls, SGD with momentum approaches SGD at the {_orders_of(result, approaching)}"
        f"{_against_theorem(result)}{rest}."
    )


def _orders_of(result: Weak, some: Sequence[Alpha]) -> str:
    measured = ", ".join(order_text(result.order(one.error)) for one in some)
    alphas = ", ".join(told_apart(one.alpha) for one in some)
    return f"order{'s' if len(some) > 1 else ''} {measured} for α = {alphas}"


def _against_theorem(result: Weak) -> str:
    """Whether orders reach the proven ones, where something is proven and measured."""
    proven = [
        (one.theorem, slope)
        for one in result.results
        if (slope := result.order(one.error)) is not None and one.theorem is not None and one.alpha < 1
    ]
    states = [_state(theorem, slope, result.settings.is_exact) for theorem, slope in proven]
    below, undecided = states.count("below"), states.count("undecided")
    if not below and not undecided:
        return ": not below the proven (1 − α)/2" if proven else ""
    said = [f", {below} of them below the proven (1 − α)/2"] if below else []
    if undecided:
        subject = f"{undecided} of them" if below or undecided < len(proven) else "they"
        why = "rates still too large" if result.settings.is_exact else "intervals too wide"
        said.append(f", {'and ' if said else ''}{subject} not decided against the proven (1 − α)/2: {why}")
    return "".join(said)


def _state(theorem: float, slope: Slope, is_exact: bool) -> Literal["reached", "below", "undecided"]:
    """Whether an order reaches the proven one: exact orders themselves, simulated ones with their whole interval."""
    if (slope.order if is_exact else slope.ci95[0]) >= theorem:
        return "reached"
    return "below" if slope.ci95[1] < theorem else "undecided"


def _lead(result: Weak) -> list[str]:
    given = result.settings
    said = [
        "The weak error is the largest distance of E x between the two algorithms over T/η steps, at noise of variance "
        "1/η and momentum 1 − β = ½ η^α (β = 0.9 for α = 0). At α = 1 the memory of the buffer lasts as long as the "
        "run, and the theorem promises nothing: the order is 0, and the error stays."
        + (" Beyond, momentum oscillates and nothing is proven." if any(o.alpha > 1 for o in result.results) else "")
    ]
    if given.is_exact:
        said.append(
            f"Orders are local, between η = {eta_text(given.rates[-2])} and {eta_text(given.rates[-1])}, of exact "
            "errors. Their intervals hold no noise: they reach to where the local orders tend."
        )
        near, total = held((one.error, one.simulated) for one in result.results)
        if total:
            said.append(
                f"A simulation with {NOISES[given.noise]} noise and {given.num_trajectories:,} coupled trajectories "
                f"{agreement(near, total, 'the exact error')}"
            )
    else:
        said.append(
            "Orders are those of a weighted straight line on logarithmic axes through the points that are clearly "
            "above their noise (4 standard errors), with 95 % intervals."
        )
        if not all(result.order(one.error) for one in result.results):
            said.append(f"Where there is a dash, {_TOO_NOISY}.")
    lost = sum(not math.isfinite(error) for one in result.results for error in one.error.errors)
    if lost:
        said.append(f"{lost} of the errors are infinite, since a run diverged at so large a rate: no fit uses them.")
    return said


def _orders(result: Weak) -> Table:
    etas = result.settings.rates
    order = "order (to its limit)" if result.settings.is_exact else "order (95 %)"
    rows = []
    for one in result.results:
        found = one.error.order()
        betas = [_momentum(momentum_at(one.alpha, eta)) for eta in (etas[0], etas[-1])]
        rows.append(
            (
                told_apart(one.alpha),
                betas[0] if betas[0] == betas[1] else f"{betas[0]} to {betas[1]}",
                order_with_interval(result.order(one.error)),
                *((order_text(found.fit),) if result.settings.is_exact else ()),
                order_text(result.order(one.of_square)),
                "–" if one.theorem is None else f"{one.theorem:.3f}",
            )
        )
    fit = ("whole range",) if result.settings.is_exact else ()
    head = ("α", "momentum β", order, *fit, "of x²", "proven")
    return Table(head, tuple(rows), "Orders of the error in η", numeric=tuple(range(2, len(head))))


def _figure_of_orders(result: Weak) -> Figure:
    known = [(one.alpha, slope) for one in result.results if (slope := result.order(one.error)) is not None]
    proven = sorted({(one.alpha, one.theorem) for one in result.results if one.theorem is not None})
    measured = Series(
        "measured",
        [alpha for alpha, _ in known],
        [slope.order for _, slope in known],
        [slope.ci95[0] for _, slope in known],
        [slope.ci95[1] for _, slope in known],
        colour="SGDM",
        mark="points",
    )
    theorem = Series("proven: (1 − α)/2", [a for a, _ in proven], [t for _, t in proven], mark="dashes")
    linear = Series("1 − α", [a for a, _ in proven], [1 - a for a, _ in proven], colour="limit")
    chart = series_chart(
        [theorem, linear, measured],
        x="α in 1 − β = ½ η^α",
        y="order of the error",
        description="Measured orders of the weak error against α, and the line of the proven (1 − α)/2.",
    )
    bars = "how far they may still rise" if result.settings.is_exact else "95 % intervals"
    return Figure("weak-orders", chart, f"Measured orders beside the proven ones; bars are {bars}.")


def _figure_of_errors(result: Weak) -> Figure:
    series: list[Series] = []
    for place, one in enumerate(result.results):
        name = f"α = {told_apart(one.alpha)}"
        if result.settings.is_exact:
            series.append(Series(name, one.error.etas, [finite(e) for e in one.error.errors], colour=place))
        if (of := one.simulated) is not None:
            mark: Mark = "points" if result.settings.is_exact else "joined"
            hollow = [not used for used in of.order().used]
            series.append(
                with_bars(name, of.etas, of.errors, of.standard_errors, colour=place, mark=mark, hollow=hollow)
            )
    points = "simulated, with 95 % intervals"
    said = [f"Lines are exact, points {points}." if result.settings.is_exact else f"Points are {points}."]
    if any(any(one.hollow) for one in series):
        said.append("Hollow points are limited by noise, and no fit uses them.")
    chart = series_chart(
        series,
        x="learning rate η",
        y="largest error of E x",
        log_x=True,
        log_y=True,
        description="The weak error of SGD with momentum against SGD by learning rate, both axes logarithmic, for each "
        "α: steep for α = 0, flat for α = 1.",
        height=280,
    )
    return Figure("weak-errors", chart, " ".join(["Slopes are orders.", *said]))


def _points(result: Weak) -> Table:
    rows = []
    for one in result.results:
        used = one.error.order().used
        simulated = {}
        if one.simulated is not None:
            columns = zip(one.simulated.etas, one.simulated.errors, one.simulated.standard_errors, strict=True)
            simulated = {eta: with_interval(e, Z95 * se) for eta, e, se in columns}
        for eta, error, counts in zip(one.error.etas, one.error.errors, used, strict=True):
            exact = (error_text(error),) if result.settings.is_exact else ()
            found = simulated.get(eta, "–")
            rows.append((told_apart(one.alpha), eta_text(eta), *exact, found, "yes" if counts else "no"))
    exact_head = ("exact error",) if result.settings.is_exact else ()
    head = ("α", "η", *exact_head, "simulated (95 %)", "used")
    return Table(head, tuple(rows), numeric=tuple(range(1, len(head) - 1)))


def _momentum(beta: float) -> str:
    """With as many digits as it takes to tell it from 1."""
    return f"{beta:.{max(2, 2 - math.floor(math.log10(1 - beta)) - 1)}g}" if beta else "0"
