"""The page of the experiment on CIFAR-10: the gap between SGD and SGDM against ℓ, and the curves behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields

from lightball.report.figures.series import Series, series_chart
from lightball.report.making import making
from lightball.report.page import Figure, Figures, Page, Section, Table
from lightball.report.reproduce.common import listed, percent, rate
from lightball.report.reproduce.pairs import MEASURES, SLUGS, ahead, failures, gap_figures, pairs_table, with_interval
from lightball.reproduce.cifar import CifarResult
from lightball.reproduce.cifar.found import Change, Fall, MeanCurve
from lightball.studies.result import JUDGED, Judged
from lightball.studies.tuning import RateScore


def cifar_page(result: CifarResult) -> Page:
    """The gaps by ℓ, the curves against effective steps, SGDM's grid, and how to make it again."""
    given = result.settings
    return Page(
        title=f"CIFAR-10 with ResNet-{given.depth} under SVAG",
        answer=_answer(result),
        lead=(_lead(result), *_notes(result)),
        notice="" if result.finished else _unfinished(result),
        sections=(
            *([_about_gaps(result)] if result.ells else []),
            *([_about_curves(result)] if result.curves else []),
            *([_grid(result)] if result.choice else []),
            making([(field.name.replace("_", "-"), _shown(getattr(given, field.name))) for field in fields(given)]),
        ),
    )


def _about_gaps(result: CifarResult) -> Section:
    falls = tuple(_drop(measure, result.falls[measure]) for measure in MEASURES if measure in result.falls)
    tables = (pairs_table("ℓ", result.ells, measure) for measure in MEASURES)
    return Section("The gap between SGD and SGDM", falls, (*tables, gap_figures("cifar", "ℓ", result.ells)))


def _about_curves(result: CifarResult) -> Section:
    text = "Means over seeds, against effective steps: ℓ small steps count as one."
    return Section("Curves", (text,), tuple(_curves(result, measure) for measure in MEASURES))


def _answer(result: CifarResult) -> str:
    if not result.ells:
        return "There are no pairs to compare yet."
    at_first = f"At ℓ = 1 {ahead(result.ells[0].gaps)}"
    changes = {result.falls[measure].change for measure in MEASURES if measure in result.falls}
    if not changes:
        return f"{at_first}."
    if len(changes) == 1 and (both := _BOTH[changes.pop()]):
        return f"{at_first}; {both.format(result.ells[-1].at)}."
    said = "; ".join(_change(measure, result.falls[measure]) for measure in MEASURES if measure in result.falls)
    return f"{at_first}. {said[0].upper()}{said[1:]}."


_BOTH: Mapping[Change, str] = {
    "falls": "both gaps are smaller at ℓ = {}",
    "grows": "both gaps are larger at ℓ = {}",
    "undecided": "whether these gaps are smaller at ℓ = {} is undecided",
    "no gap": "there is no gap that could fall",
}


def _change(measure: Judged, fall: Fall) -> str:
    name, until = JUDGED[measure], f"ℓ = {fall.last}"
    return {
        "falls": f"the gap in {name} is smaller at {until}",
        "grows": f"the gap in {name} is larger at {until}",
        "undecided": f"whether the gap in {name} is smaller at {until} is undecided",
        "no gap": f"in {name} there is no gap that could fall",
    }[fall.change]


def _drop(measure: Judged, fall: Fall) -> str:
    said = with_interval(fall.drop, measure).replace("+", "")
    unit = " points" if measure == "test_accuracy" else ""
    return (
        f"In {JUDGED[measure]} the gap is smaller at ℓ = {fall.last} than at ℓ = {fall.first} by {said}{unit} "
        "(95 % interval, paired by seed)."
    )


def _lead(result: CifarResult) -> str:
    given = result.settings
    effective = result.choice.effective_lr if result.choice else None
    at = "" if effective is None else f", η = {rate(effective)} (γ = {effective * (1 - given.momentum):.3g} for SGDM)"
    return (
        "SVAG(ℓ) takes ℓ steps of rate η/ℓ for one, with ℓ times the noise covariance: the noise of a run is the same, "
        f"what curvature does to it 1/ℓ. Both rules run at the rate that was best for SGDM by validation accuracy{at}; "
        f"B = {given.batch_size}, {given.epochs} epochs, β = {given.momentum:g} at every ℓ."
    )


def _notes(result: CifarResult) -> list[str]:
    said = []
    if result.choice and result.choice.at_edge:
        said.append("SGDM's rate lies at the edge of its grid: a wider one may have a better rate.")
    return [*said, *failures("ℓ =", result.ells)]


def _unfinished(result: CifarResult) -> str:
    asked = result.settings.ells or ()
    begun = {one.at: one.count for one in result.ells}
    pairs = listed([f"{begun.get(ell, 0)} at ℓ = {ell}" for ell in asked])
    return f"Not finished: of {result.settings.seeds} pairs there are {pairs}. The same command goes on."


def _curves(result: CifarResult, measure: Judged) -> Figures:
    ells = dict.fromkeys(curve.ell for curve in result.curves)
    return Figures(tuple(_figure_of_curves([c for c in result.curves if c.ell == ell], ell, measure) for ell in ells))


def _figure_of_curves(curves: Sequence[MeanCurve], ell: int, measure: Judged) -> Figure:
    def values(curve: MeanCurve) -> list[float | None]:
        if measure == "train_loss":
            return [*curve.train_loss]
        return [None if value is None else 100 * value for value in curve.test_accuracy]

    series = [Series(curve.rule, curve.steps, values(curve), colour=curve.rule) for curve in curves]
    chart = series_chart(
        series,
        x="effective steps",
        y="test accuracy (%)" if measure == "test_accuracy" else "training loss",
        log_y=measure == "train_loss",
        title=f"ℓ = {ell}",
        description=f"The {JUDGED[measure]} of SGD and SGDM under SVAG({ell}) against effective steps.",
    )
    return Figure(f"cifar-{SLUGS[measure]}-{ell}", chart)


def _grid(result: CifarResult) -> Section:
    given, choice = result.settings, result.choice
    scores = choice.scores if choice else ()
    selected = choice.effective_lr if choice else None
    rows = tuple(
        (
            rate(one.effective_lr),
            f"{one.effective_lr * (1 - given.momentum):.3g}",
            _of_runs(one),
            f"{one.failed} of {one.runs}",
            "selected" if one.effective_lr == selected else "",
        )
        for one in scores
    )
    head = ("η", "SGDM's γ", "validation accuracy (%)", "failed", "")
    return Section("SGDM's rate", (), (Table(head, rows, "SGDM at ℓ = 1 on tuning seeds", numeric=(0, 1, 2)),))


def _of_runs(score: RateScore) -> str:
    spread = "" if score.standard_error is None else f" ± {percent(score.standard_error, 2)}"
    return f"{percent(score.mean, 2)}{spread}"


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return ",".join(f"{one:g}" for one in value)
    return "by the device" if value is None else str(value)
