"""The page of variances: what an update of SGD with momentum hides, and its displacement shows."""

from __future__ import annotations

from lightball.report.figures.series import Mark, Series, series_chart
from lightball.report.making import making
from lightball.report.page import Figure, Page, Section, Table
from lightball.report.theory.agreement import agreement
from lightball.report.theory.numbers import told_apart, with_interval
from lightball.theory.variance import OfMomentum, Ratio, Variance, displacement_ratio

_NEARLY = 0.95


def variance_page(result: Variance) -> Page:
    """Both ratios of variances against the number of steps, and a table of where they end."""
    given = result.settings
    return Page(
        title="Variance of SGD with momentum over that of SGD",
        answer=_answer(result),
        lead=(
            "Gradients are noise alone. An update of SGDM averages many of them, and so has the variance "
            "(1 − β)/(1 + β) of SGD's: this is what momentum is said to be good for. But each gradient goes on to "
            "count in later updates, which add up: over K steps the displacement has all of SGD's variance but a share "
            "O(1/(K(1 − β))).",
            _agreement(result),
        ),
        sections=(
            Section("One update and many", (), (_figure(result), _table(result))),
            making(
                (
                    ("gradient", "g = v, E v = 0, Var v = 1, Gaussian"),
                    ("update rule", "m' = β m + (1 − β) g, x' = x − η m', m₀ = 0"),
                    ("trajectories", f"{given.trajectories:,} of each algorithm, on the same noise"),
                    ("steps", f"{given.num_steps:,}"),
                    ("seed", str(given.seed)),
                )
            ),
        ),
    )


def _answer(result: Variance) -> str:
    one = min(result.results, key=lambda each: abs(each.momentum - 0.9))
    update, path = one.update[-1].exact, one.displacement[-1].exact
    turn = "but" if path > 2 * update else "and"
    return (
        f"One update of SGDM at β = {one.momentum:g} has {_percent(update)} of the variance of SGD's, {turn} its "
        f"displacement over {result.steps[-1]:,} steps has {_percent(path)}."
    )


def _agreement(result: Variance) -> str:
    ratios = [ratio for one in result.results for ratio in (*one.update, *one.displacement)]
    near = sum(ratio.agrees for ratio in ratios)
    return f"The simulation {agreement(near, len(ratios), 'the closed forms')}"


def _figure(result: Variance) -> Figure:
    series: list[Series] = []
    simulated: list[Series] = []
    kinds: tuple[tuple[str, Mark], ...] = (("displacement", "line"), ("update", "dashes"))
    for place, one in enumerate(result.results):
        for name, mark in kinds:
            ratios: tuple[Ratio, ...] = getattr(one, name)
            label = f"{name}, β = {told_apart(one.momentum)}"
            series.append(Series(label, result.steps, [r.exact for r in ratios], colour=place, mark=mark))
            simulated.append(_points(result, ratios))
    chart = series_chart(
        [*series, *simulated],
        x="steps K",
        y="variance, SGDM over SGD",
        log_x=True,
        log_y=True,
        level=1.0,
        description="Ratios of the variance of SGD with momentum to that of SGD, by number of steps. The update's "
        "stays small; the displacement's rises to 1.",
    )
    return Figure(
        "variance",
        chart,
        "Lines are closed forms, points simulated with 95 % intervals. Dashed: one update, after K steps. Solid: the "
        "displacement over K steps, which reaches 1, the variance of SGD.",
    )


def _points(result: Variance, ratios: tuple[Ratio, ...]) -> Series:
    """Every other one: they are close."""
    some = slice(len(ratios) % 2 == 0, None, 2)  # the last is among them
    return Series(
        "simulated",
        result.steps[some],
        [r.simulated for r in ratios[some]],
        [r.low for r in ratios[some]],
        [r.high for r in ratios[some]],
        mark="points",
    )


def _table(result: Variance) -> Table:
    head = ("β", "update", "simulated", "displacement", "simulated", f"{_percent(_NEARLY)} at K")
    rows = tuple(
        (
            told_apart(one.momentum),
            _number(one.update[-1].exact),
            _with_interval(one.update[-1]),
            _number(one.displacement[-1].exact),
            _with_interval(one.displacement[-1]),
            f"{_steps_until(one, _NEARLY):,}",
        )
        for one in result.results
    )
    return Table(head, rows, f"SGDM over SGD after {result.steps[-1]:,} steps", numeric=tuple(range(1, len(head))))


def _steps_until(one: OfMomentum, ratio: float) -> int:
    """The first number of steps after which the displacement has so much of SGD's variance."""
    low, high = 0, 1
    while displacement_ratio(one.momentum, [high])[0] < ratio:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if displacement_ratio(one.momentum, [middle])[0] >= ratio else (middle, high)
    return high


def _with_interval(ratio: Ratio) -> str:
    return with_interval(ratio.simulated, (ratio.high - ratio.low) / 2)


def _number(value: float) -> str:
    return f"{value:.4f}"


def _percent(value: float) -> str:
    """With three digits, and no more than is known of what is nearly all."""
    return f"{100 * value:.3g} %" if value < 0.9995 else f"{100 * value:.4g} %"
