"""A section of a page: SGD, SVAG and SGDM against the two SDEs."""

from __future__ import annotations

from lightball.report.figures.series import Series, series_chart
from lightball.report.page import Figure, Section, Table
from lightball.report.theory.numbers import with_bars
from lightball.report.theory.orders import error_text, eta_text, order_with_interval
from lightball.theory.sde import SdePair, SdeResult


def sde_section(result: SdeResult) -> Section:
    """Orders in a table, errors in a figure."""
    damped = f"β = 1 − {result.settings.damping:g}η".replace(" ", "\N{NO-BREAK SPACE}")
    text = (
        "Weak error of E x on ½x² with noise of variance 1/η, on the same Brownian paths as fine simulations of the "
        "SDEs. An order of 1 is an algorithm that approaches the equation, 0 one that does not: SGDM whose memory "
        f"lasts as long as the run, {damped}, follows the underdamped equation instead of the first."
    )
    return Section("Against the SDEs", (text,), (_orders(result), _figure(result)))


def _orders(result: SdeResult) -> Table:
    smallest = eta_text(result.pairs[0].error.etas[-1])
    head = ("algorithm", "SDE", "order (95 %)", "expected", f"error at {smallest}")
    rows = tuple(
        (
            pair.algorithm,
            pair.equation,
            order_with_interval(pair.order),
            f"{'≥ ' if pair.is_bound else ''}{pair.expected:g}",
            error_text(pair.error.errors[-1]),
        )
        for pair in result.pairs
    )
    return Table(
        head, rows, "Orders between the two smallest learning rates, and largest errors of E x", numeric=(2, 3, 4)
    )


def _figure(result: SdeResult) -> Figure:
    series = []
    for place, algorithm in enumerate(result.settings.algorithms):
        name = algorithm.removeprefix("SGDM, ")
        for pair in result.pairs:
            if pair.algorithm == algorithm and pair.equation == "first order":
                series.append(_series(pair, name, place))
            elif pair.algorithm == algorithm and pair.expected:
                series.append(_series(pair, f"{name}, underdamped", len(result.settings.algorithms)))
    chart = series_chart(
        series,
        x="learning rate η",
        y="largest error of E x",
        log_x=True,
        log_y=True,
        description="Weak errors against the SDEs by learning rate, both axes logarithmic: all fall in proportion to η "
        "but that of SGDM with a long memory against the first-order SDE.",
        height=260,
    )
    return Figure(
        "sde-errors", chart, "Errors against the first-order SDE, or the underdamped where named. Slopes are orders."
    )


def _series(pair: SdePair, name: str, colour: int) -> Series:
    of = pair.error
    hollow = [not used for used in of.order().used]
    return with_bars(name, of.etas, of.errors, of.standard_errors, colour=colour, mark="joined", hollow=hollow)
