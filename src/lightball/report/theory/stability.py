"""The page of stability: the largest learning rate that momentum allows, in theory and simulated."""

from __future__ import annotations

from lightball.report.figures.series import Series, series_chart
from lightball.report.making import making
from lightball.report.page import Figure, Page, Section, Table
from lightball.report.theory.numbers import told_apart
from lightball.theory.stability import Frontier, Stability, largest_stable_lr

_POINTS_OF_LINE = 60


def stability_page(result: Stability) -> Page:
    """The frontier against β, and a table with what the simulation leaves open."""
    given = result.settings
    near, total = sum(one.agrees for one in result.results), len(result.results)
    verdict = "agrees" if near == total else "does not agree"
    return Page(
        title="Largest stable learning rate by momentum",
        answer=_answer(result),
        lead=(
            "Where curvature is the limit, momentum helps: trajectories stay bounded up to the effective learning rate "
            "η = 2(1 + β)/((1 − β)h), where SGD stops at 2/h. Where noise is the limit, that room is of no use.",
            f"The simulation {verdict}: in {near} of {total} cases the closed form lies in the interval that it leaves "
            "open, between the largest rate that did not grow and the smallest that did, less what is "
            f"too slow to be seen in {given.probe_steps:,} steps.",
        ),
        sections=(
            Section("Frontier", (), (_figure(result), _table(result))),
            making(
                (
                    ("curvature", f"h = {given.curvature:g}"),
                    ("gradient", "g = h x + v, E v = 0, Var v = h², Gaussian"),
                    ("start", "x₀ = 1, m₀ = 0"),
                    ("a probe", f"{given.replicas} trajectories of {given.probe_steps:,} steps"),
                    ("growth", "mean square at the end over 4 times that in the middle"),
                    ("bisected to", f"{100 * given.resolution:g} %"),
                    ("seed", str(given.seed)),
                )
            ),
        ),
    )


def _answer(result: Stability) -> str:
    h = result.settings.curvature
    one = min(result.results, key=lambda each: abs(each.momentum - 0.9))
    sgd = largest_stable_lr(0.0, h)
    return (
        f"At β = {one.momentum:g} SGDM is stable up to an effective learning rate of {_interval(one)} in simulation, "
        f"{one.exact:.4g} in theory: {one.exact / sgd:.3g} times SGD's."
    )


def _figure(result: Stability) -> Figure:
    h = result.settings.curvature
    last = max(one.momentum for one in result.results)
    betas = [last * place / _POINTS_OF_LINE for place in range(_POINTS_OF_LINE + 1)]
    momenta = [one.momentum for one in result.results]
    series = [
        Series("effective η", betas, [largest_stable_lr(beta, h) for beta in betas], colour="SGDM"),
        Series(
            "torch's lr",
            betas,
            [(1 - beta) * largest_stable_lr(beta, h) for beta in betas],
            colour=4,
            mark="dashes",
        ),
        Series(
            "simulated",
            momenta,
            [one.simulated for one in result.results],
            [one.low for one in result.results],
            [one.growing for one in result.results],
            mark="points",
        ),
        Series(
            "simulated",
            momenta,
            [(1 - one.momentum) * one.simulated for one in result.results],
            [(1 - one.momentum) * one.low for one in result.results],
            [(1 - one.momentum) * one.growing for one in result.results],
            mark="points",
        ),
    ]
    chart = series_chart(
        series,
        x="momentum β",
        y="largest stable learning rate",
        log_y=True,
        description="Largest stable learning rate by momentum, on a logarithmic axis: the simulated points lie on the "
        "closed forms.",
    )
    return Figure(
        "stability",
        chart,
        "Lines are closed forms, points simulated; what they leave open is smaller than the points. As torch counts "
        "it, lr = (1 − β)η, the limit is 2(1 + β)/h, which never exceeds twice that of SGD.",
    )


def _table(result: Stability) -> Table:
    head = ("β", "η exact", "η simulated", "of SGD's", "torch's lr")
    sgd = largest_stable_lr(0.0, result.settings.curvature)
    rows = tuple(
        (
            told_apart(one.momentum),
            f"{one.exact:.5g}",
            _interval(one),
            f"{one.exact / sgd:.3g} ×",
            f"{(1 - one.momentum) * one.exact:.4g}",
        )
        for one in result.results
    )
    return Table(head, rows, "Largest stable learning rate", numeric=tuple(range(1, len(head))))


def _interval(one: Frontier) -> str:
    return f"{one.low:.5g} to {one.growing:.5g}"
