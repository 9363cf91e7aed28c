"""The page of schedules: which SGD matches SGD with momentum whose rate and momentum change."""

from __future__ import annotations

import math

import numpy as np

from lightball.report.figures.series import Series, series_chart
from lightball.report.making import making
from lightball.report.page import Figure, Figures, Page, Section, Table
from lightball.report.theory.agreement import agreement, held
from lightball.report.theory.numbers import with_bars, with_interval
from lightball.report.theory.orders import error_text, eta_text, order_text, order_with_interval
from lightball.stats.orders import Z95
from lightball.theory.as_json import finite
from lightball.theory.schedule import Match, Schedules

NAMES = {"averaged": "averaged", "naive": "γ/(1 − β)", "constant": "nothing changes"}
ABOUT_ONE = 0.95
COLOURS: dict[str, str | int] = {"averaged": "SGD", "naive": 3, "constant": "theory"}


def schedule_page(result: Schedules) -> Page:
    """Errors and orders of the two matches, and the schedules themselves."""
    given = result.settings
    return Page(
        title="SGD with momentum under schedules, and the SGD that matches it",
        answer=_answer(result),
        lead=_lead(result),
        sections=(
            Section("Errors", (), (_table(result), _figure_of_errors(result))),
            *((_every_point(result),) if result.averaged.simulated else ()),
            Section("One run", (), (_figures_of_run(result), _figure_of_squares(result))),
            making(
                (
                    ("schedule of the rate", given.schedule),
                    ("momentum", given.momentum),
                    ("problem", "½x² with gradient noise of variance 1/η, x₀ = 1, m₀ = 0"),
                    ("time", f"T = {given.horizon:g}, T/η steps"),
                    ("trajectories", f"{given.trajectories:,} of each algorithm, on the same noise"),
                    ("seed", str(given.seed)),
                )
            ),
        ),
    )


def _answer(result: Schedules) -> str:
    eta, ratio = result.settings.rates[-1], result.ratios[-1]
    orders = [order_text(match.error.order().local) for match in (result.averaged, result.naive)]
    averaged, naive = (match.error.errors[-1] for match in (result.averaged, result.naive))
    if not (math.isfinite(averaged) and math.isfinite(naive)):
        return "One of the runs diverges, so that no SGD matches it: choose smaller learning rates."
    if averaged == naive == 0:
        return (
            "There is nothing to match: SGD with momentum, SGD with the averaged schedule and SGD at the rate "
            "γ/(1 − β) are the same algorithm here, and all errors are 0."
        )
    if averaged == 0 or naive == 0:
        same, other = ("with the averaged schedule", "at the rate γ/(1 − β)")[:: 1 if averaged == 0 else -1]
        return f"At η = {eta_text(eta)} SGD {same} is the same as SGD with momentum, and SGD {other} is not."
    if ratio < ABOUT_ONE:
        how, than = f"{1 / ratio:.2g} times closer to", "than"
    else:
        how, than = "as far from" if ratio < 1 / ABOUT_ONE else f"{ratio:.2g} times as far from", "as"
    return (
        f"At η = {eta_text(eta)} SGD with the averaged schedule is {how} SGD with momentum {than} SGD at the rate "
        f"γ/(1 − β) of each step; their errors have the orders {orders[0]} and {orders[1]}."
    )


def _lead(result: Schedules) -> tuple[str, ...]:
    said = [
        "The averaged schedule takes each gradient with the total rate at which momentum will have used it; γ/(1 − β) "
        "is the effective rate of the moment. Errors are the largest distances of E x or E x² from SGD with momentum "
        "over a run, whichever is larger."
    ]
    if 0.5 < result.ratios[-1] < math.inf and result.naive.error.errors[-1] > 0:
        said.append(
            "Here both are of one order. Where rate and momentum change slowly, against the memory of the buffer, "
            "γ/(1 − β) is as good, and may be nearer at any one time: what the averaged schedule gives a gradient, "
            "momentum has yet to give."
        )
    near, total = held(
        (match.errors[name], one) for match in (result.averaged, result.naive) for name, one in match.simulated.items()
    )
    if total:
        rates = result.settings.simulated_rates
        said.append(
            f"Lines are exact. A simulation of {result.settings.trajectories:,} coupled trajectories, from η = "
            f"{eta_text(rates[0])} to {eta_text(rates[-1])}, {agreement(near, total, 'the exact error')}"
        )
    return tuple(said)


def _table(result: Schedules) -> Table:
    rows = []
    for match in (result.averaged, result.naive, result.constant):
        found, errors = match.error.order(), match.error.errors
        ends = [f"{error_text(errors[0])} to {error_text(errors[-1])}"]
        rows.append((NAMES[match.name], *ends, order_with_interval(found.local), order_text(found.fit)))
    etas = result.settings.rates
    caption = f"Errors from η = {eta_text(etas[0])} to {eta_text(etas[-1])} and their order in η"
    return Table(("SGD's rate", "error", "local order", "whole range"), tuple(rows), caption, numeric=(1, 2, 3))


def _every_point(result: Schedules) -> Section:
    """What is simulated, beside what is exact."""
    rows = [
        (NAMES[match.name], name, eta_text(eta), error_text(exact), with_interval(error, Z95 * se))
        for match in (result.averaged, result.naive)
        for name, found in match.simulated.items()
        for eta, exact, error, se in zip(
            found.etas, match.errors[name].errors, found.errors, found.standard_errors, strict=False
        )
    ]
    head = ("SGD's rate", "of", "η", "exact error", "simulated (95 %)")
    return Section("Every simulated point", (), (Table(head, tuple(rows), numeric=(2, 3, 4)),), folded=True)


def _figure_of_errors(result: Schedules) -> Figure:
    matches = (result.constant, result.naive, result.averaged)
    points = [point for match in matches for point in _simulated(match)]
    chart = series_chart(
        [
            *(
                Series(
                    NAMES[match.name],
                    match.error.etas,
                    [finite(error) for error in match.error.errors],
                    colour=COLOURS[match.name],
                    mark="dashes" if match.name == "constant" else "line",
                )
                for match in matches
            ),
            *points,
        ],
        x="largest learning rate η of the run",
        y="larger error of E x and E x²",
        log_x=True,
        log_y=True,
        description="Weak errors against SGD with momentum by learning rate: the averaged schedule's falls in "
        "proportion to η, as where nothing changes; that of the rate γ/(1 − β) need not.",
    )
    said = ["Dashed: SGD against SGD with momentum of the same mean where neither rate nor momentum changes."]
    if points:
        said.append("Points are simulated, with 95 % intervals.")
    if any(any(point.hollow) for point in points):
        said.append("Noise limits the hollow ones.")
    return Figure("schedule-errors", chart, " ".join(said))


def _simulated(match: Match) -> list[Series]:
    of = match.simulated_error
    if of is None:
        return []
    hollow = [not used for used in of.order().used]
    return [
        with_bars(NAMES[match.name], of.etas, of.errors, of.standard_errors, colour=COLOURS[match.name], hollow=hollow)
    ]


def _figures_of_run(result: Schedules) -> Figures:
    run = result.run
    time = (np.arange(len(run.lr)) * run.eta).tolist()
    rates = series_chart(
        [
            Series(NAMES["averaged"], time, (run.averaged / run.eta).tolist(), colour=COLOURS["averaged"]),
            Series(NAMES["naive"], time, (run.lr / run.eta).tolist(), colour=COLOURS["naive"]),
        ],
        x="time ηk",
        y="learning rate / η",
        description="The averaged schedule and the effective learning rate over a run.",
    )
    momentum = series_chart(
        [Series("momentum", time, run.momentum.tolist(), colour="SGDM")],
        x="time ηk",
        y="momentum β",
        description="The momentum over a run.",
    )
    at = f"η = {eta_text(run.eta)}, {len(run.lr):,} steps"
    return Figures(
        (
            Figure("schedule-rates", rates, f"Learning rates of the two matches, {at}."),
            Figure("schedule-momentum", momentum, f"The momentum that they are to match, {at}."),
        )
    )


def _figure_of_squares(result: Schedules) -> Figure:
    run = result.run
    time = (np.array(run.recorded) * run.eta).tolist()
    names = {"SGDM": "momentum", "naive": NAMES["naive"], "averaged": NAMES["averaged"]}
    colours = {**COLOURS, "SGDM": "SGDM"}
    chart = series_chart(
        [
            Series(name, time, [finite(v) for v in run.squares[arm].tolist()], colour=colours[arm])
            for arm, name in names.items()
        ],
        x="time ηk",
        y="E x²",
        description="The mean square of x over a run: SGD with the averaged schedule keeps to SGD with momentum.",
    )
    return Figure("schedule-square", chart, f"The mean square over the same run, η = {eta_text(run.eta)}.")
