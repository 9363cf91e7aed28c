"""The page of an advice: the answer, where momentum pays, the forecast, and what both rest on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lightball.report.advice.card import facts, title
from lightball.report.advice.charts import forecasts, map_of, spectra
from lightball.report.advice.checked import answer, checked
from lightball.report.advice.words import difference, number, sentence
from lightball.report.making import making
from lightball.report.numbers import UNKNOWN
from lightball.report.page import Badge, Figures, Listing, Page, Section, Table

if TYPE_CHECKING:
    from lightball.forecast.advice import Advice, PhaseAdvice
    from lightball.studies.verification import Verification

_TERMS = (
    "A step of SGD at the rate η and batch size B changes the expected loss by −η‖g‖² (descent) + ½η² gᵀHg (curvature) "
    "+ ½η² tr(HΣ)/B (noise). Where noise is what limits η, momentum has little to offer; where curvature does, it has."
)


def advice_page(
    task: str, advice: Advice, verification: Verification | None = None, settings: Sequence[tuple[str, str]] = ()
) -> Page:
    """The page of ``lightball advise``.

    Args:
        task: its name.
        advice: what it says.
        verification: what runs gave, beside the forecast.
        settings: what else it was made with, by name.
    """
    return Page(
        title=title(task, advice),
        answer=sentence(answer(advice, verification)),
        sections=(
            Section("In short", (), (facts(advice),)),
            Section("Without momentum", (f"{sentence(advice.without_momentum)} {sentence(advice.matched_schedule)}",)),
            *(() if verification is None else (checked(verification),)),
            Section("Value of momentum at equal rates", (), (map_of(advice),)),
            Section("Forecast", _validity(advice), (forecasts(advice),)),
            Section("One step", (_TERMS,), (_terms(advice),)),
            Section("By phase", (), (_phases(advice),)),
            Section("Spectra", (), (Figures(spectra(advice)),)),
            Section("What it rests on", (), (Listing(_notes(advice)),)),
            making((*_settings(advice), *settings)),
        ),
    )


def _validity(advice: Advice) -> tuple[str, ...]:
    value = advice.value_of_momentum
    return () if value.valid else (f"This forecast does not stand by its number: {value.reason}.",)


def _terms(advice: Advice) -> Table:
    head = ("phase", "descent", "curvature", "noise", "regime")
    rows = tuple(
        (
            at.phase.name,
            number(at.terms.descent),
            number(at.terms.curvature),
            number(at.terms.noise),
            at.regime.name,
        )
        for at in advice.by_phase
    )
    return Table(head, rows, "Expected change of the loss in one step of SGD at the setting", numeric=(1, 2, 3))


def _phases(advice: Advice) -> Table:
    head = ("phase", "loss", "‖g‖²", "tr Σ", "noise scale", "λ_max", "value of momentum", "verdict", "valid")
    rows = tuple(_phase(at) for at in advice.by_phase)
    steps = advice.value_of_momentum.num_steps
    caption = f"What was measured, and the value of momentum over {steps:,} steps from there"
    return Table(head, rows, caption, numeric=(1, 2, 3, 4, 5, 6))


def _phase(at: PhaseAdvice) -> tuple[str | Badge, ...]:
    probe, value = at.phase.probe, at.value
    return (
        at.phase.name,
        number(probe.loss),
        number(probe.gradient_norm_squared.value),
        number(probe.trace_noise.value),
        number(probe.noise_scale.value) if probe.noise_scale.determined else "not determined",
        number(probe.sharpness.value),
        difference(value.difference, value.low, value.high) if value.valid else UNKNOWN,
        Badge(str(value.verdict), str(value.verdict)),
        "yes" if value.valid else "no",
    )


def _notes(advice: Advice) -> tuple[str, ...]:
    """Why parts are not valid, the thresholds of the regime, and what the probes say of themselves."""
    value, best, critical = advice.value_of_momentum, advice.best_tuned, advice.critical_batch_size
    notes = [sentence(f"at the setting: {value.reason}")] if value.reason else []
    notes += [sentence(f"best tuned: {best.reason}")] if best.reason else []
    notes += [sentence(f"critical batch size: {critical.reason}")] if critical.reason else []
    limits = ", ".join(f"{name} {limit:g}" for name, limit in advice.regime.thresholds.items())
    notes += [f"Thresholds of the regime: {limits}."] if limits else []
    several = len(advice.by_phase) > 1
    said: dict[str, list[str]] = {}
    for at in advice.by_phase:
        for note in at.phase.probe.notes:
            said.setdefault(sentence(note), []).append(at.phase.name)
    for note, names in said.items():
        everywhere = len(names) == len(advice.by_phase) or not several
        notes.append(note if everywhere else f"{sentence(', '.join(names))[:-1]}: {note}")
    return tuple(notes)


def _settings(advice: Advice) -> tuple[tuple[str, str], ...]:
    given, probe = advice.setting, advice.phases[advice.main].probe
    return (
        (
            "setting",
            f"{given.convention}, lr {given.lr:g}, momentum {given.momentum:g}, batch size {advice.batch_size:,}",
        ),
        ("effective lr", f"{given.effective_lr:g}"),
        ("sampling", advice.sampling),
        ("momentum at the beginning", "the optimizer's" if advice.warm else "none"),
        ("steps of the forecast", f"{advice.value_of_momentum.num_steps:,}"),
        ("epochs, best tuned", str(advice.best_tuned.epochs)),
        ("curvature", f"{probe.curvature}, of {probe.curvature_examples:,} examples"),
        ("noise", f"{probe.noise_batches:,} {'examples' if probe.per_example else 'batches'}"),
        ("parameters", f"{probe.num_parameters:,}"),
    )
