"""The page of weak errors: how fast SGD with momentum becomes SGD, beside what is proven."""

from __future__ import annotations

import math

from lightball.report.figures.series import Mark, Series, series_chart
from lightball.report.page import Figure, Page, Section, Table
from lightball.report.theory.agreement import agreement
from lightball.report.theory.making import making
from lightball.report.theory.orders import error_text, eta_text, known, order_text, order_with_interval
from lightball.theory.weak import Alpha, Weak, momentum_at

LOSSES = {"quadratic": "½x²", "log-cosh": "log cosh x", "cosine": "1 − cos x"}
NOISES = {"gaussian": "Gaussian", "rademacher": "Rademacher", "student-t": "Student t (5 degrees of freedom)"}
_TOO_NOISY = "too few errors are above their noise: simulate more trajectories"
_Z = 1.96


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
    measured = ", ".join(order_text(slope) for slope in orders)
    alphas = ", ".join(f"{one.alpha:g}" for one in result.results)
    plural = "s" if len(orders) > 1 else ""
    if all(one.alpha >= 1 for one in result.results):
        return f"SGD with momentum does not approach SGD as η falls: order{plural} {measured} for α = {alphas}."
    return (
        f"As η falls, SGD with momentum approaches SGD at the order{plural} {measured} for α = {alphas}"
        f"{_against_theorem(result)}."
    )


def _against_theorem(result: Weak) -> str:
    """Whether orders reach the proven ones, where something is proven and measured."""
    proven = [
        (one.theorem, slope)
        for one in result.results
        if (slope := result.order(one.error)) is not None and one.theorem is not None and one.alpha < 1
    ]
    if not proven:
        return ""
    below = [theorem for theorem, slope in proven if slope.ci95[1] < theorem]
    return f", {len(below)} of them below the proven (1 − α)/2" if below else ": not below the proven (1 − α)/2"


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
        if agreement := _agreement(result):
            said.append(agreement)
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


def _agreement(result: Weak) -> str:
    """How many simulated errors hold the exact ones in their intervals."""
    near = total = 0
    for one in result.results:
        if one.simulated is None:
            return ""
        exact = dict(zip(one.error.etas, one.error.errors, strict=True))
        for eta, error, se in zip(one.simulated.etas, one.simulated.errors, one.simulated.standard_errors, strict=True):
            total += 1
            near += abs(error - exact[eta]) <= _Z * se
    return (
        f"A simulation with {NOISES[result.settings.noise]} noise and {result.settings.num_trajectories:,} coupled "
        f"trajectories {agreement(near, total, 'the exact error')}"
    )


def _orders(result: Weak) -> Table:
    etas = result.settings.rates
    order = "order (to its limit)" if result.settings.is_exact else "order (95 %)"
    rows = []
    for one in result.results:
        found = one.error.order()
        betas = [_momentum(momentum_at(one.alpha, eta)) for eta in (etas[0], etas[-1])]
        rows.append(
            (
                f"{one.alpha:g}",
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
        name = f"α = {one.alpha:g}"
        if result.settings.is_exact:
            series.append(Series(name, one.error.etas, [known(e) for e in one.error.errors], colour=place))
        if one.simulated is not None:
            series.append(_simulated(name, place, one, "points" if result.settings.is_exact else "joined"))
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


def _simulated(name: str, place: int, one: Alpha, mark: Mark) -> Series:
    assert one.simulated is not None
    of, used = one.simulated, one.simulated.order().used
    halves = [_Z * se for se in of.standard_errors]
    return Series(
        name,
        of.etas,
        [known(e) for e in of.errors],
        [known(e - half) for e, half in zip(of.errors, halves, strict=True)],
        [known(e + half) for e, half in zip(of.errors, halves, strict=True)],
        colour=place,
        mark=mark,
        hollow=[not u for u in used],
    )


def _points(result: Weak) -> Table:
    rows = []
    for one in result.results:
        used = one.error.order().used
        simulated = {}
        if one.simulated is not None:
            columns = zip(one.simulated.etas, one.simulated.errors, one.simulated.standard_errors, strict=True)
            simulated = {eta: f"{error_text(e)} ± {error_text(_Z * se)}" for eta, e, se in columns}
        for eta, error, counts in zip(one.error.etas, one.error.errors, used, strict=True):
            exact = (error_text(error),) if result.settings.is_exact else ()
            rows.append((f"{one.alpha:g}", eta_text(eta), *exact, simulated.get(eta, "–"), "yes" if counts else "no"))
    exact_head = ("exact error",) if result.settings.is_exact else ()
    head = ("α", "η", *exact_head, "simulated (95 %)", "used")
    return Table(head, tuple(rows), numeric=tuple(range(1, len(head) - 1)))


def _momentum(beta: float) -> str:
    """With as many digits as it takes to tell it from 1."""
    return f"{beta:.{max(2, 2 - math.floor(math.log10(1 - beta)) - 1)}g}" if beta else "0"
