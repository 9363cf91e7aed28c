"""The page of the long horizon: SGD, SGDM and the slow SDE on one axis."""

from __future__ import annotations

import math

from lightball.report.figures.series import Series, series_chart
from lightball.report.page import Figure, Figures, Page, Section, Table
from lightball.report.theory.making import making
from lightball.report.theory.orders import known, order_with_interval
from lightball.stats.extrapolation import Limit
from lightball.theory.slow import Run, Slow
from lightball.theory.slow_json import ALGORITHMS, Algorithm

_Z = 1.96
_NAMES = {"sgd": "SGD", "sgdm": "SGDM"}
_POINTS_OF_FIT = 40


def slow_page(result: Slow) -> Page:
    """What SGD and SGDM tend to as η → 0, the runs it comes from, and the way there."""
    given = result.settings
    return Page(
        title="The drift to flat minimizers, over 1/η² steps",
        answer=_answer(result),
        lead=_lead(result),
        sections=(
            Section("As the learning rate falls", (), (_runs(result), _figure_of_limit(result))),
            Section("On the way", (), (_figures_of_way(result),)),
            Section("Flatness, and what it brings", (), (_others(result), _figures_of_others(result))),
            making(
                (
                    ("model", result.model.about),
                    ("momentum", f"β = {given.momentum:g}"),
                    ("trajectories", f"{result.runs[0].moments.num_trajectories:,} of each algorithm, on one noise"),
                    ("slow time", f"t = η²k up to {result.path.times[-1]:g}"),
                    ("extrapolation", "weighted least squares, quadratic in η where there are three rates or more"),
                    ("seed", str(given.seed)),
                )
            ),
        ),
    )


def _answer(result: Slow) -> str:
    limits = {algorithm: result.limit(algorithm) for algorithm in ALGORITHMS}
    if any(limit is None for limit in limits.values()):
        return "At these learning rates trajectories diverge, so that there is no limit to extrapolate to: lower them."
    missing = [_NAMES[algorithm] for algorithm in ALGORITHMS if not result.agrees(algorithm)]
    sde, at = _figures_for(result.sde()), f"{result.observables[0]} at slow time {result.path.times[-1]:g}"
    found = " and ".join(f"{_limit(limits[a])} with {_NAMES[a]}" for a in ALGORITHMS)
    if missing:
        do = "do" if len(missing) > 1 else "does"
        return (
            f"{' and '.join(missing)} {do} not extrapolate to the slow SDE from these rates: {at} tends to {found}, "
            f"not to {sde}; smaller η decide."
        )
    return f"SGD and SGDM drift alike, as the slow SDE says: as η → 0, {at} tends to {found}; the SDE gives {sde}."


def _lead(result: Slow) -> tuple[str, ...]:
    said = [
        result.model.about,
        "Trajectories start on the minimizers, and noise drives them along to where the loss is flatter, in "
        "proportion to η² a step: t = η²k is the time of the slow SDE. At one η SGD and SGDM are each off by O(η).",
    ]
    if error := result.error_order("sgd").local:
        said.append(f"SGD's distance to the slow SDE falls with η at order {order_with_interval(error)}.")
    if order := result.gap_order().local:
        said.append(
            f"The gap between SGDM and SGD falls with η at order {order_with_interval(order)}, and extrapolates to "
            f"{_limit(result.gap_limit())}."
        )
    lost = {_NAMES[a]: max(run.diverged(a) for run in result.runs) for a in ALGORITHMS}
    if any(lost.values()):
        counts = " and ".join(f"{count:,} of {name}" for name, count in lost.items() if count)
        said.append(f"At one rate or more trajectories diverged, at most {counts}: means are those of the others.")
    return tuple(said)


def _runs(result: Slow) -> Table:
    rows = [
        (
            f"{run.eta:.4g}",
            f"{run.num_steps:,}",
            *(_measured(*run.end(algorithm)) for algorithm in ALGORITHMS),
            _measured(*run.gap(), sign="+"),
        )
        for run in result.runs
    ]
    limits = [_limit(result.limit(algorithm)) for algorithm in ALGORITHMS]
    rows.append(("→ 0", "", *limits, _limit(result.gap_limit(), sign="+")))
    sde = _figures_for(result.sde())
    rows.append(("slow SDE", "", sde, sde, "0"))
    caption = f"{result.observables[0]} at slow time {result.path.times[-1]:g}, with 95 % intervals"
    return Table(("η", "steps", "SGD", "SGDM", "SGDM − SGD"), tuple(rows), caption, numeric=(1, 2, 3, 4))


def _others(result: Slow) -> Table:
    rows = tuple(
        (
            name,
            _figures_for(float(result.path.mean[0, i])),
            _figures_for(result.sde(i)),
            *(_limit(result.limit(algorithm, i)) for algorithm in ALGORITHMS),
        )
        for i, name in enumerate(result.observables)
    )
    head = ("observable", "start", "slow SDE", "SGD, η → 0", "SGDM, η → 0")
    return Table(head, rows, f"From the start to slow time {result.path.times[-1]:g}", numeric=(1, 2, 3, 4))


def _figure_of_limit(result: Slow) -> Figure:
    series = []
    for algorithm in ALGORITHMS:
        ends = [run.end(algorithm) for run in result.runs]
        name, limit = _NAMES[algorithm], result.limit(algorithm)
        if limit is not None:
            etas = [max(result.etas) * place / _POINTS_OF_FIT for place in range(_POINTS_OF_FIT + 1)]
            series.append(Series(name, etas, [limit.at(eta) for eta in etas], colour=name))
            ends.append((limit.value, limit.standard_error))
        series.append(
            Series(
                name,
                [*result.etas, 0.0][: len(ends)],
                [known(value) for value, _ in ends],
                [known(value - _Z * error) for value, error in ends],
                [known(value + _Z * error) for value, error in ends],
                colour=name,
                mark="points",
                hollow=[place >= len(result.etas) for place in range(len(ends))],
            )
        )
    sde = [result.sde()] * 2
    chart = series_chart(
        [Series("slow SDE", [0.0, max(result.etas)], sde, colour="limit", mark="dashes"), *series],
        x="learning rate η",
        y=f"{result.observables[0]} at slow time {result.path.times[-1]:g}",
        description=f"{result.observables[0]} at the end against the learning rate: SGD and SGDM approach the value of "
        "the slow SDE as η falls to 0.",
        height=260,
    )
    return Figure(
        "slow-limit",
        chart,
        "Measured values with 95 % intervals, and the curves that extrapolate them to 0, where points are hollow.",
    )


def _figures_of_way(result: Slow) -> Figures:
    ends = dict.fromkeys((0, len(result.runs) - 1))
    return Figures(tuple(_figure_of_run(result, result.runs[i], 0, f"slow-way-{i + 1}") for i in ends))


def _figures_of_others(result: Slow) -> Figures:
    others = range(1, len(result.observables))
    return Figures(tuple(_figure_of_run(result, result.runs[-1], i, f"slow-more-{i}") for i in others))


def _figure_of_run(result: Slow, run: Run, observable: int, name: str) -> Figure:
    def measured(place: int, algorithm: Algorithm) -> Series:
        means = run.moments.mean[place, :, observable].tolist()
        return Series(
            _NAMES[algorithm],
            run.times.tolist(),
            [known(mean) for mean in means],
            colour=_NAMES[algorithm],
            mark="points",
        )

    path = result.path
    what = result.observables[observable]
    chart = series_chart(
        [
            Series("slow SDE", path.times.tolist(), path.mean[:, observable].tolist(), colour="limit"),
            *(measured(place, algorithm) for place, algorithm in enumerate(ALGORITHMS)),
        ],
        x="slow time t = η²k",
        y=what,
        description=f"{what} along slow time at η = {run.eta:.4g}: means of SGD and SGDM beside the slow SDE.",
    )
    return Figure(name, chart, f"{what} at η = {run.eta:.4g}, means of {run.moments.num_trajectories:,} trajectories.")


def _limit(limit: Limit | None, sign: str = "-") -> str:
    return "–" if limit is None else _measured(limit.value, limit.standard_error, sign)


def _measured(value: float, error: float, sign: str = "-") -> str:
    """A value with the half width of its 95 % interval, to two digits of that: 1.3808 ± 0.0053."""
    if not (math.isfinite(value) and math.isfinite(error)):
        return "diverged"
    if error == 0:
        return _figures_for(value)
    decimals = min(max(1 - math.floor(math.log10(_Z * error)), 0), 8)
    text = f"{value:{sign}.{decimals}f} ± {_Z * error:.{decimals}f}"
    if len(text) > 20:
        text = f"{value:{sign}.2e} ± {_Z * error:.0e}"
    return text.replace("-", "−").replace(" ", "\N{NO-BREAK SPACE}")


def _figures_for(value: float) -> str:
    """Five digits: what the slow SDE is good for."""
    return f"{value:.5g}".replace("-", "−")
