"""The page of the long horizon: SGD, SGDM and the slow SDE on one axis."""

from __future__ import annotations

import math

from lightball.report.figures.series import Series, series_chart
from lightball.report.making import making
from lightball.report.page import Figure, Figures, Page, Section, Table
from lightball.report.theory.numbers import with_bars
from lightball.report.theory.orders import order_with_interval
from lightball.stats import Limit
from lightball.stats.orders import Z95
from lightball.theory.as_json import finite
from lightball.theory.slow import Slow
from lightball.theory.slow_runs import ALGORITHMS, Algorithm, Run

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
            Section("Flatness, and what it brings", _held(result), (_others(result), _figures_of_others(result))),
            making(
                (
                    ("model", result.model.about),
                    ("momentum", f"β = {given.momentum:g}"),
                    ("trajectories", f"{result.runs[0].moments.num_trajectories:,} of each algorithm, on one noise"),
                    ("slow time", f"t = η²k up to {result.path.times[-1]:g}"),
                    ("slow SDE", _steps_of_sde(result)),
                    ("extrapolation", "weighted least squares, quadratic in η where there are three rates or more"),
                    ("seed", str(given.seed)),
                )
            ),
        ),
    )


def _steps_of_sde(result: Slow) -> str:
    path = result.path
    if path.num_trajectories == 1:
        return f"one path, certain as no noise is along the minimizers; steps of {path.dt:g} in t"
    bias = f"{result.sde_bias[0]:.1g}".replace("-", "−")
    return f"{path.num_trajectories:,} trajectories; steps of {path.dt:g} in t, which miss by about {bias}"


def _held(result: Slow) -> tuple[str, ...]:
    """How many of the other observables' 95 % intervals at η → 0 hold the slow SDE."""
    places = range(1, len(result.observables))
    limits = [(result.limit(algorithm, i), result.sde(i)) for algorithm in ALGORITHMS for i in places]
    known_limits = [(limit, sde) for limit, sde in limits if limit is not None]
    if not known_limits:
        return ()
    near = sum(limit.ci95[0] <= sde <= limit.ci95[1] for limit, sde in known_limits)
    return (
        f"Of their 95 % intervals at η → 0, {near} of {len(known_limits)} hold the slow SDE. They come from the same "
        "trajectories, and hold or miss together.",
    )


def _answer(result: Slow) -> str:
    limits = {algorithm: result.limit(algorithm) for algorithm in ALGORITHMS}
    verdicts = {algorithm: result.verdict(algorithm) for algorithm in ALGORITHMS}
    sde, at = _figures_for(result.sde()), f"{result.observables[0]} at slow time {result.path.times[-1]:g}"
    found = " and ".join(f"{_limit(limit)} with {_NAMES[a]}" for a, limit in limits.items() if limit)
    if missing := [_NAMES[a] for a, verdict in verdicts.items() if verdict == "differs"]:
        do = "do" if len(missing) > 1 else "does"
        return (
            f"{' and '.join(missing)} {do} not extrapolate to the slow SDE from these rates: {at} tends to {found}, "
            f"not to {sde}; run it with smaller η."
        )
    unknown = "Whether SGD and SGDM drift alike cannot be told from these runs: "
    if None in limits.values():
        none = " and ".join(_NAMES[a] for a, limit in limits.items() if limit is None)
        return f"{unknown}trajectories of {none} diverge at all rates but one or none; lower the learning rates."
    if "not resolved" in verdicts.values():
        return (
            f"{unknown}{at} tends to {found}, which is too uncertain beside the {_figures_for(result.moved())} that "
            f"the slow SDE moves it, to {sde}; {_remedy(result)}."
        )
    return f"SGD and SGDM drift alike, as the slow SDE says: as η → 0, {at} tends to {found}; the SDE gives {sde}."


def _remedy(result: Slow) -> str:
    """What would resolve it."""
    if any(run.diverged(algorithm) for run in result.runs for algorithm in ALGORITHMS):
        return "lower the learning rates, of which some let trajectories diverge"
    return "take more trajectories, or a longer slow time"


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
    lost = [
        f"{run.diverged(a):,} of {_NAMES[a]} at η = {run.eta:.4g}"
        for run in result.runs
        for a in ALGORITHMS
        if run.diverged(a)
    ]
    if lost:
        said.append(f"Trajectories diverged, {', '.join(lost)}: such a rate has no mean, and is not used.")
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
            with_bars(
                name,
                [*result.etas, 0.0][: len(ends)],
                [value for value, _ in ends],
                [error for _, error in ends],
                colour=name,
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
    def measured(algorithm: Algorithm) -> Series:
        return Series(
            _NAMES[algorithm],
            run.times.tolist(),
            [finite(mean) for mean in run.means(algorithm, observable).tolist()],
            colour=_NAMES[algorithm],
            mark="points",
        )

    path = result.path
    what = result.observables[observable]
    chart = series_chart(
        [
            Series("slow SDE", path.times.tolist(), path.mean[:, observable].tolist(), colour="limit"),
            *(measured(algorithm) for algorithm in ALGORITHMS),
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
    decimals = min(max(1 - math.floor(math.log10(Z95 * error)), 0), 8)
    text = f"{value:{sign}.{decimals}f} ± {Z95 * error:.{decimals}f}"
    if len(text) > 20:
        text = f"{value:{sign}.2e} ± {Z95 * error:.0e}"
    return text.replace("-", "−").replace(" ", "\N{NO-BREAK SPACE}")


def _figures_for(value: float) -> str:
    """Five digits: what the slow SDE is good for."""
    return f"{value:.5g}".replace("-", "−")
